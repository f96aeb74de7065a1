"""The style sheet of the report: light and dark by the reader's preference, wide screen and phone."""

_LIGHT = ("#0a66c2", "#c2410c", "#0f766e", "#a21caf", "#854d0e", "#4338ca", "#be123c", "#3f6212")
_DARK = ("#6cb2ff", "#ff9d66", "#4fd1c0", "#ef8df7", "#f0c04f", "#a5a0ff", "#ff8fa3", "#b5dd5a")
_DASHES = ("none", "7 3", "2 2", "9 3 2 3", "5 5", "12 4", "1 3", "9 2 1 2 1 2")


def _colours(palette: tuple[str, ...]) -> str:
    return "".join(f"--s{number}:{colour};" for number, colour in enumerate(palette))


def _series() -> str:
    return "".join(
        f".s{number}{{--c:var(--s{number})}}.line.s{number}{{stroke-dasharray:{dashes}}}"
        for number, dashes in enumerate(_DASHES)
    )


STYLE = (
    f":root{{color-scheme:light dark;--text:#1b1f24;--soft:#59636e;--page:#fff;--card:#f6f8fa;--rule:#d1d9e0;"
    f"--warn:#fff3cd;--warn-text:#5c4400;--other:#8c959f;{_colours(_LIGHT)}}}"
    f"@media(prefers-color-scheme:dark){{:root{{--text:#e6edf3;--soft:#9aa4af;--page:#0d1117;--card:#161b22;"
    f"--rule:#30363d;--warn:#3a2f00;--warn-text:#ffe69c;--other:#7d8590;{_colours(_DARK)}}}}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--page);color:var(--text);"
    "font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{max-width:1180px;margin:0 auto;padding:20px 16px 48px}"
    "h1{font-size:1.6rem;line-height:1.25;margin:.2em 0 .6em}h2{font-size:1.3rem;margin:1.6em 0 .4em}"
    "h3{font-size:1.08rem;margin:1.8em 0 .5em}"
    ".banner{background:var(--warn);color:var(--warn-text);border-left:5px solid currentColor;padding:10px 14px;"
    "font-weight:600;border-radius:4px}"
    ".note{color:var(--soft);margin:.5em 0}"
    ".badge{font-size:.72rem;font-weight:600;background:var(--warn);color:var(--warn-text);border-radius:3px;"
    "padding:1px 5px;white-space:nowrap}"
    ".scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:6px;margin:.6em 0}"
    "table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}"
    "th,td{padding:7px 9px;text-align:left;white-space:nowrap;border-bottom:1px solid var(--rule)}"
    "tbody tr:last-child>*{border-bottom:0}thead th{background:var(--card);color:var(--soft);font-weight:600}"
    "tbody th{font-weight:600;position:sticky;left:0;background:var(--page);white-space:normal;min-width:8.5em;"
    "overflow-wrap:anywhere}"
    ".swatch{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.45em;background:var(--c)}"
    ".swatch.other{--c:var(--other);margin-left:.8em}"
    ".wrap td{white-space:normal;min-width:7.5em;overflow-wrap:anywhere}.wrap td:last-child{min-width:14em}"
    ".wrap small.span{white-space:nowrap}td em{font-style:normal;color:var(--soft)}"
    "details{margin:.5em 0}summary{cursor:pointer;padding:4px 0;font-weight:600}"
    "td small,th small{display:block;color:var(--soft);font-weight:400;font-size:.84em}"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:.2em 0 .8em}"
    "svg.key{display:inline-block;width:26px;height:8px;margin-right:7px;vertical-align:middle}"
    "figure{margin:0}figcaption{font-size:.86rem;color:var(--soft);margin:.2em 0 .4em}figcaption b{color:var(--text)}"
    ".det>svg{max-width:600px}.groups{max-width:640px;margin:.4em 0 1em}"
    "@media(min-width:860px){.det{display:grid;grid-template-columns:minmax(0,600px) 1fr;gap:24px}"
    ".det figcaption{padding-top:10px}.det .legend{flex-direction:column}}"
    "span.key{white-space:nowrap;margin-left:.6em}"
    ".grid2{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:22px}"
    "svg{display:block;width:100%;height:auto;color:var(--soft)}"
    "svg text{fill:currentColor;font-size:11px}svg .label{font-size:12px}"
    ".grid{stroke:var(--rule);stroke-width:.7}.frame{fill:none;stroke:currentColor;stroke-width:.8}"
    ".line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}"
    ".band{fill:var(--c);opacity:.15}.dot{fill:var(--c);stroke:var(--page);stroke-width:1.2}"
    ".bars{fill:var(--c);fill-opacity:.45;stroke:var(--c);stroke-width:1}.other{--c:var(--other)}"
    ".dot.hollow{fill:var(--page);stroke:var(--c);stroke-width:1.6}"
    ".mark{stroke:var(--text);stroke-width:1;stroke-dasharray:3 2}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;font-size:.88rem;margin:0}"
    "dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}"
    "@media(max-width:560px){dl{grid-template-columns:1fr}dd{margin-bottom:6px}main{padding:14px 12px 40px}"
    "h1{font-size:1.35rem}th,td{padding:6px 9px}}"
    "@media print{body{background:#fff}.scroll{overflow:visible}}" + _series() + ".line.solid{stroke-dasharray:none}"
)


def standalone(picture: str) -> str:
    """A picture of `parvox.evaluation.plots` as a file of its own, with its style within, light and dark.

    Args:
        picture: The SVG.
    """
    width, height = picture.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    opening, _, rest = picture.partition(">")
    size = f"svg{{width:{width}px;height:{height}px;font-family:system-ui,sans-serif}}"
    style = f"<style>{STYLE}{size}</style>"
    ground = '<rect width="100%" height="100%" style="fill:var(--page)"/>'
    return f'{opening} width="{width}" height="{height}">{style}{ground}{rest}\n'
