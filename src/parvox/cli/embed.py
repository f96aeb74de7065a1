"""`parvox embed`."""

from __future__ import annotations

import json as json_format
from pathlib import Path

from parvox.cli.parsing import call


def main(argv: list[str]) -> None:
    """Embed recordings and say what was written."""
    call(embed, argv, prog="parvox embed")


def embed(
    model: Path,
    recordings: list[Path],
    *,
    out: Path = Path("embeddings.npz"),
    skip_bad: bool = False,
    max_duration_s: float = 300.0,
    cut: bool = False,
    threads: int = 1,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn recordings into speaker embeddings.

    parvox embed student.onnx recordings/ extra.flac --out voices.npz

    Writes a NumPy .npz with ids, embeddings, speech_s, and the model's name and fingerprint. Embeddings are biometric
    data: keep the file like a fingerprint.

    Args:
        model: Model file written by parvox export.
        recordings: Recordings (WAV, FLAC, OGG, MP3), and folders to search for them.
        out: File to write.
        skip_bad: Leave out recordings that cannot be used, and list them, instead of stopping at the first.
        max_duration_s: Longest recording allowed.
        cut: Use the first max_duration_s of longer recordings instead of refusing them.
        threads: Threads to compute with.
        overwrite: Replace the output file if it exists.
        json: Print one JSON object (without the embeddings).
    """
    from parvox.runtime.embeddings import embed_to_file

    made = embed_to_file(
        model,
        recordings,
        out,
        max_duration_s=max_duration_s,
        cut=cut,
        skip_bad=skip_bad,
        threads=threads,
        overwrite=overwrite,
    )
    count, size = made.embeddings.shape
    if json:
        left_out = [{"path": path, "problem": problem} for path, problem in made.left_out]
        told = {
            "out": str(out),
            "recordings": count,
            "embedding_dim": size,
            "speech_s": float(made.speech_s.sum()),
            "model": made.model,
            "fingerprint": made.fingerprint,
            "left_out": left_out,
        }
        print(json_format.dumps(told))
        return
    print(f"wrote      {out}: {count} embeddings of {size} numbers")
    print(f"speech     {made.speech_s.sum():.1f} s")
    print(f"model      {made.model}, fingerprint {made.fingerprint[:12]}")
    for _, problem in made.left_out:
        print(f"left out   {problem}")
