"""Each importer on a tree that looks like the real thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parvox.corpora.entries import Entry, Listing, find_recordings
from parvox.corpora.import_cnceleb import import_cnceleb
from parvox.corpora.import_csv import import_csv
from parvox.corpora.import_deepmine import import_deepmine
from parvox.corpora.import_folder import import_folder
from parvox.corpora.import_recipes import import_librispeech, import_musan, import_rirs
from parvox.corpora.import_rsr2015 import import_rsr2015_part1, import_rsr2015_part2, import_rsr2015_part3
from parvox.corpora.import_voxceleb import import_voxceleb1, import_voxceleb2
from parvox.corpora.import_words import import_audiomnist, import_himia
from parvox.corpora.trials import Trial
from parvox.errors import CorpusError, TrialError

MakeWav = Callable[..., Path]
EVERY = [
    import_folder,
    import_csv,
    import_voxceleb1,
    import_voxceleb2,
    import_cnceleb,
    import_librispeech,
    import_musan,
    import_rirs,
    import_rsr2015_part1,
    import_rsr2015_part2,
    import_rsr2015_part3,
    import_deepmine,
    import_audiomnist,
    import_himia,
]


def by_id(listing: Listing) -> dict[str, Entry]:
    found = {entry.id: entry for entry in listing.entries}
    assert len(found) == len(listing.entries)
    assert all(entry.path.is_file() for entry in listing.entries)
    return found


def reasons(listing: Listing) -> dict[str, str]:
    return {item.path: item.reason for item in listing.rejected}


@pytest.mark.parametrize("importer", EVERY)
def test_missing_root_file_as_root_and_empty_root(importer: Callable[[Path], Listing], tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder.*expected"):
        importer(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match="is a file; expected"):
        importer(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="expected") as error:
        importer(tmp_path / "empty")
    assert "\n" not in str(error.value)


class TestFolder:
    def test_speakers_sessions_and_any_depth(self, tmp_path: Path, make_wav: MakeWav) -> None:
        for path in ("anna/a.wav", "anna/day 2/b.FLAC", "ben/day1/x/y/c.wav", "ben/day1/x/z/c.wav", "lost.wav"):
            make_wav(tmp_path / "c" / path, 0.1)
        make_wav(tmp_path / "c" / "anna" / "a.flac", 0.1)
        make_wav(tmp_path / "c" / "anna" / "._a.wav", 0.1)
        make_wav(tmp_path / "c" / ".trash" / "t.wav", 0.1)
        (tmp_path / "c" / "anna" / "notes.txt").write_text("not a recording")
        (tmp_path / "c" / "ben" / "phone.m4a").write_bytes(b"1234")
        listing = import_folder(tmp_path / "c")
        found = by_id(listing)
        assert {name: (one.speaker, one.session) for name, one in found.items()} == {
            "anna/a": ("anna", "anna"),
            "anna/a.wav": ("anna", "anna"),
            "anna/day%202/b": ("anna", "day 2"),
            "ben/day1/x/y/c": ("ben", "day1"),
            "ben/day1/x/z/c": ("ben", "day1"),
        }
        assert {one.source for one in listing.entries} == {"c"}
        assert reasons(listing) == {"lost.wav": "no speaker", "ben/phone.m4a": "unreadable"}
        assert "ffmpeg" in listing.rejected[0].detail + listing.rejected[1].detail

    def test_only_undecodable_recordings(self, tmp_path: Path) -> None:
        (tmp_path / "anna").mkdir()
        (tmp_path / "anna" / "a.m4a").write_bytes(b"1234")
        with pytest.raises(CorpusError, match="formats that are not decoded.*ffmpeg"):
            import_folder(tmp_path)

    def test_links_are_followed_once(self, tmp_path: Path, make_wav: MakeWav) -> None:
        make_wav(tmp_path / "elsewhere" / "a.wav", 0.1)
        root = tmp_path / "root"
        root.mkdir()
        (root / "anna").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere" / "loop").symlink_to(root, target_is_directory=True)
        assert list(find_recordings(root)) == ["anna/a.wav"]

    def test_names_that_are_not_text(self, tmp_path: Path, make_wav: MakeWav) -> None:
        make_wav(tmp_path / "anna" / "a.wav", 0.1)
        try:
            (tmp_path / "anna" / "a.wav").rename(tmp_path / "anna" / "b\udcff.wav")
        except (OSError, UnicodeError):
            pytest.skip("this file system takes only UTF-8 names")
        make_wav(tmp_path / "anna" / "a.wav", 0.1)
        listing = import_folder(tmp_path)
        assert list(by_id(listing)) == ["anna/a"]
        assert [item.reason for item in listing.rejected] == ["bad name"]
        listing.rejected[0].path.encode()


class TestCsv:
    def write(self, folder: Path, text: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.csv").write_text(text, encoding="utf-8")
        return folder

    def test_columns(self, tmp_path: Path) -> None:
        root = self.write(
            tmp_path / "c",
            "\ufeffPath,speaker,source,session,text,lang,gender,native_rate,recording,extra,licence\n"
            'x/a.wav,anna,studio,day1,"hello, you",en,Female,44100,tape7,?,CC0-1.0\n'
            "x\\b_s3.wav,anna,,,,,,,,,CC-BY-4.0\n"
            "./x/c.wav,ben,,,,,m,,,,\n",
        )
        listing = import_csv(root)
        first, second, third = listing.entries
        assert (first.id, first.speaker, first.source, first.session) == ("x/a", "anna", "studio", "day1")
        assert (first.text, first.language, first.gender) == ("hello, you", "en", "f")
        assert (first.native_rate_hz, first.recording) == (44100, "tape7")
        assert (second.id, second.source, second.session, second.recording) == ("x/b_s3", "c", "anna", "x/b")
        assert (second.text, second.gender, second.native_rate_hz) == (None, None, None)
        assert (third.id, third.path, third.recording) == ("x/c", root / "x/c.wav", "x/c")
        assert listing.licences == ["CC-BY-4.0", "CC0-1.0"]
        assert not listing.synthetic

    def test_folders_with_manifests_are_combined(self, tmp_path: Path) -> None:
        self.write(tmp_path / "c" / "one", "path,speaker\na.wav,01\n")
        self.write(tmp_path / "c" / "two", "path,speaker\na.wav,01\nb_s0.wav,01\nb_s1.wav,01\n")
        self.write(tmp_path / "c" / "hum", "path,kind\nn.wav,noise\nr_0.wav,rir\nr_1.wav,rir\n")
        (tmp_path / "c" / "other").mkdir()
        listing = import_csv(tmp_path / "c")
        found = {entry.id: entry for entry in listing.entries}
        assert {name: one.speaker for name, one in found.items() if one.kind == "speech"} == {
            "one/a": "one/01",
            "two/a": "two/01",
            "two/b_s0": "two/01",
            "two/b_s1": "two/01",
        }
        assert found["two/b_s0"].recording == found["two/b_s1"].recording != found["two/a"].recording
        assert found["hum/n"].kind == "noise"
        assert found["hum/r_0"].recording == found["hum/r_1"].recording
        assert listing.notes == ["other/ has no manifest.csv and was left out"]

    def test_rows_that_cannot_be_used_are_rejected(self, tmp_path: Path) -> None:
        root = self.write(tmp_path, "path,speaker\na.wav,anna\na.wav,ben\nb.wav,\n,ben\nc.m4a,ben\n")
        listing = import_csv(root)
        assert [entry.id for entry in listing.entries] == ["a"]
        assert [item.reason for item in listing.rejected] == ["duplicate", "no speaker", "no path", "unreadable"]
        assert "line 4" in listing.rejected[1].detail

    @pytest.mark.parametrize("how", ["column", "source"])
    def test_synthetic_speech_is_marked(self, tmp_path: Path, how: str) -> None:
        text = "path,speaker,source,synthetic\n"
        row = "a.wav,anna,x,1\n" if how == "column" else "a.wav,anna,parvox-synthetic,\n"
        assert import_csv(self.write(tmp_path, text + row)).synthetic
        noise = "path,speaker,source,synthetic,kind\na.wav,anna,x,,speech\nr.wav,,parvox-synthetic,1,rir\n"
        assert not import_csv(self.write(tmp_path, noise)).synthetic

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("file,speaker\na.wav,anna\n", "has columns file, speaker; needed are path and speaker"),
            ("path,text\na.wav,hello\n", "has columns path, text; needed are"),
            ("", r"has columns \(none\)"),
            ("path,speaker\n", "lists no recordings"),
            ("path,speaker\n/etc/a.wav,anna\n", "line 2: path '/etc/a.wav' leaves the folder"),
            ("path,speaker\nC:\\a.wav,anna\n", "leaves the folder"),
            ("path,speaker\nx/../../a.wav,anna\n", "line 2: path 'x/../../a.wav' leaves the folder"),
            ("path,speaker,kind\na.wav,anna,music\n", "line 2: kind 'music' given; expected speech, noise or rir"),
            ("path,speaker,native_rate\na.wav,anna,8kHz\n", "line 2: native_rate '8kHz' given"),
            ("path,speaker,split\na.wav,anna,eval\n", "line 2: split 'eval' given"),
            ('path,speaker\n"a.wav,anna\n', "not a CSV file"),
        ],
    )
    def test_manifests_that_are_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(CorpusError, match=message):
            import_csv(self.write(tmp_path / "c", text))

    def test_binary_manifest(self, tmp_path: Path) -> None:
        (tmp_path / "manifest.csv").write_bytes(b"path,speaker\n\xff\xfe\n")
        with pytest.raises(CorpusError, match="not a CSV file in UTF-8"):
            import_csv(tmp_path)


class TestVoxCeleb:
    @pytest.fixture
    def voxceleb1(self, tmp_path: Path, make_wav: MakeWav) -> Path:
        root = tmp_path / "vox1"
        for number, path in enumerate(
            (
                "id10001/1zcIwhmdeo4/00001.wav",
                "id10001/1zcIwhmdeo4/00002.wav",
                "id10001/7gWzIy6yIIk/00001.wav",
                "id10002/xTV-jFAUKcw/00001.wav",
                "id10270/x6uYqmx31kE/00001.wav",
            )
        ):
            make_wav(root / "wav" / path, 0.1, seed=number)
        (root / "vox1_meta.csv").write_text(
            "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
            "id10001\tA.J._Buckley\tm\tIreland\tdev\n"
            "id10002\tA.R._Rahman\tm\tIndia\tdev\n"
            "id10270\tEartha_Kitt\tf\tUSA\ttest\n"
        )
        return root

    def test_voxceleb1(self, voxceleb1: Path, make_wav: MakeWav) -> None:
        make_wav(voxceleb1 / "extra.wav", 0.1)
        listing = import_voxceleb1(voxceleb1)
        found = by_id(listing)
        assert len(found) == 5
        one = found["id10001/1zcIwhmdeo4/00002"]
        assert (one.speaker, one.session, one.gender, one.split) == ("id10001", "1zcIwhmdeo4", "m", "train")
        assert one.recording == found["id10001/1zcIwhmdeo4/00001"].recording
        assert one.recording != found["id10001/7gWzIy6yIIk/00001"].recording
        assert found["id10270/x6uYqmx31kE/00001"].split == "test"
        assert found["id10270/x6uYqmx31kE/00001"].gender == "f"
        assert reasons(listing) == {"extra.wav": "unlisted"}

    def test_agrees_with_lhotse_s_recipe(self, voxceleb1: Path) -> None:
        from lhotse.recipes import voxceleb

        theirs = voxceleb._prepare_voxceleb_v1(voxceleb1, 1)
        expected = {
            (segment.id, segment.speaker, segment.gender, split)
            for split, manifests in theirs.items()
            for segment in manifests["supervisions"]
        }
        ours = import_voxceleb1(voxceleb1).entries
        assert {(e.id.replace("/", "-"), e.speaker, e.gender, e.split) for e in ours} == expected

    def test_without_metadata_and_in_the_archives_own_folders(self, tmp_path: Path, make_wav: MakeWav) -> None:
        make_wav(tmp_path / "latest" / "vox1_dev_wav/wav/id10001/v-1/00001.wav", 0.1)
        make_wav(tmp_path / "latest" / "vox1_test_wav/wav/id10300/v-2/00001.wav", 0.1)
        found = by_id(import_voxceleb1(tmp_path / "latest"))
        assert {name: (e.split, e.gender) for name, e in found.items()} == {
            "id10001/v-1/00001": ("train", None),
            "id10300/v-2/00001": ("test", None),
        }

    def test_voxceleb2(self, tmp_path: Path, make_wav: MakeWav) -> None:
        make_wav(tmp_path / "dev/aac/id00012/21Uxsk56VDQ/00001.flac", 0.1)
        make_wav(tmp_path / "dev/aac/id00015/a/00001.flac", 0.1)
        make_wav(tmp_path / "test/aac/id00017/b/00001.flac", 0.1)
        make_wav(tmp_path / "dev/aac/id10270/c/00001.flac", 0.1)  # a number that is special in VoxCeleb1 alone
        (tmp_path / "vox2_meta.csv").write_text(
            "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \nid00015 ,n000015 ,f ,test \n"
        )
        found = by_id(import_voxceleb2(tmp_path))
        assert {name: (e.split, e.gender) for name, e in found.items()} == {
            "id00012/21Uxsk56VDQ/00001": ("train", "m"),
            "id00015/a/00001": ("test", "f"),
            "id00017/b/00001": ("test", None),
            "id10270/c/00001": ("train", None),
        }

    def test_voxceleb2_still_in_m4a(self, tmp_path: Path) -> None:
        path = tmp_path / "dev/aac/id00012/21Uxsk56VDQ/00001.m4a"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"1234")
        with pytest.raises(CorpusError, match=r"1 recordings in formats that are not decoded.*ffmpeg"):
            import_voxceleb2(tmp_path)


class TestCnCeleb:
    @pytest.fixture
    def cnceleb(self, tmp_path: Path, make_wav: MakeWav) -> Path:
        root = tmp_path / "CN-Celeb_flac"
        for number, path in enumerate(
            (
                "data/id00000/singing-01-001.flac",
                "data/id00000/singing-01-002.flac",
                "data/id00000/live_broadcast-02-001.flac",
                "data/id00001/vlog-01-001.flac",
                "data/id00800/singing-01-001.flac",
                "eval/enroll/id00800-enroll.flac",
                "eval/enroll/id00801-enroll.flac",
                "eval/test/id00800-singing-01-001.flac",
                "eval/test/id00801-interview-03-002.flac",
            )
        ):
            make_wav(root / path, 0.1, seed=number)
        (root / "dev").mkdir()
        (root / "dev" / "dev.lst").write_text("id00000\nid00001\n")
        lists = root / "eval" / "lists"
        lists.mkdir()
        (lists / "enroll.lst").write_text(
            "id00800-enroll enroll/id00800-enroll.wav\nid00801-enroll enroll/id00801-enroll.wav\n"
        )
        (lists / "trials.lst").write_text(
            "id00800-enroll test/id00800-singing-01-001.wav 1\nid00800-enroll test/id00801-interview-03-002.wav 0\n"
        )
        return root

    def test_speakers_sessions_and_splits(self, cnceleb: Path) -> None:
        listing = import_cnceleb(cnceleb)
        found = by_id(listing)
        assert {name: (e.speaker, e.session, e.split) for name, e in found.items()} == {
            "data/id00000/singing-01-001": ("id00000", "singing-01", "train"),
            "data/id00000/singing-01-002": ("id00000", "singing-01", "train"),
            "data/id00000/live_broadcast-02-001": ("id00000", "live_broadcast-02", "train"),
            "data/id00001/vlog-01-001": ("id00001", "vlog-01", "train"),
            "eval/enroll/id00800-enroll": ("id00800", "id00800-enroll", "test"),
            "eval/enroll/id00801-enroll": ("id00801", "id00801-enroll", "test"),
            "eval/test/id00800-singing-01-001": ("id00800", "singing-01", "test"),
            "eval/test/id00801-interview-03-002": ("id00801", "interview-03", "test"),
        }
        recordings = {name: e.recording for name, e in found.items()}
        assert recordings["data/id00000/singing-01-001"] == recordings["data/id00000/singing-01-002"]
        assert len(set(recordings.values())) == 7
        assert reasons(listing) == {"data/id00800/singing-01-001.flac": "evaluation copy"}

    def test_its_own_trials(self, cnceleb: Path) -> None:
        for root, prefix in ((cnceleb, ""), (cnceleb.parent, "CN-Celeb_flac/")):
            listing = import_cnceleb(root)
            assert listing.trial_lists["test"].trials == [
                Trial(f"{prefix}eval/enroll/id00800-enroll.wav", f"{prefix}eval/test/{test}.wav", target)
                for test, target in (("id00800-singing-01-001", True), ("id00801-interview-03-002", False))
            ]

    def test_cnceleb2_beside_it(self, cnceleb: Path, make_wav: MakeWav) -> None:
        make_wav(cnceleb.parent / "CN-Celeb2_flac/data/id10000/drama-01-001.flac", 0.1, seed=50)
        found = by_id(import_cnceleb(cnceleb.parent))
        assert found["CN-Celeb2_flac/data/id10000/drama-01-001"].split == "train"

    def test_damaged_trials(self, cnceleb: Path) -> None:
        (cnceleb / "eval/lists/trials.lst").write_text("id00800-enroll test/id00800-singing-01-001.wav 1\nx y\n")
        with pytest.raises(TrialError, match="line 2: 'x y' is no trial"):
            import_cnceleb(cnceleb)


class TestLibriSpeech:
    @pytest.fixture
    def librispeech(self, tmp_path: Path, make_wav: MakeWav) -> Path:
        root = tmp_path / "LibriSpeech"
        for number, (part, chapter) in enumerate(
            (("train-clean-5", "19-198"), ("train-clean-5", "19-227"), ("dev-clean-2", "84-121123"))
        ):
            folder = root / part / chapter.replace("-", "/")
            for utterance in range(2):
                make_wav(folder / f"{chapter}-{utterance:04d}.flac", 0.1, seed=10 * number + utterance)
            lines = "".join(f"{chapter}-{utterance:04d} SOME WORDS {utterance}\n" for utterance in range(2))
            (folder / f"{chapter}.trans.txt").write_text(lines)
        (root / "SPEAKERS.TXT").write_text("; ID |SEX| SUBSET |MINUTES| NAME\n19 | F | train-clean-5 | 1 | X\n")
        return tmp_path

    def test_speakers_chapters_and_parts(self, librispeech: Path) -> None:
        for root in (librispeech, librispeech / "LibriSpeech"):
            found = by_id(import_librispeech(root))
            assert len(found) == 6
            one = found["train-clean-5/19/198/19-198-0001"]
            assert (one.speaker, one.session, one.recording, one.split) == ("19", "19-198", "19-198", "train")
            assert (one.text, one.language, one.gender, one.source) == ("SOME WORDS 1", "en", "f", "librispeech")
            other = found["dev-clean-2/84/121123/84-121123-0000"]
            assert (other.speaker, other.gender, other.split) == ("84", None, "dev")

    def test_broken_recordings_do_not_stop_it(self, librispeech: Path, make_wav: MakeWav) -> None:
        root = librispeech / "LibriSpeech"
        broken = root / "train-clean-5/19/198/19-198-0000.flac"
        broken.write_text("this is no recording")
        (root / "train-clean-5/19/227/19-227-0001.flac").write_bytes(b"")
        make_wav(root / "train-clean-5/19/198/19-198-0009.flac", 0.1, seed=99)
        listing = import_librispeech(librispeech)
        assert len(by_id(listing)) == 4
        assert all(str(entry.path).startswith(str(root)) for entry in listing.entries)
        assert reasons(listing) == {
            "train-clean-5/19/198/19-198-0000.flac": "unreadable",
            "train-clean-5/19/227/19-227-0001.flac": "empty",
            "train-clean-5/19/198/19-198-0009.flac": "unlisted",
        }

    def test_something_else(self, tmp_path: Path, make_wav: MakeWav) -> None:
        make_wav(tmp_path / "anna" / "a.wav", 0.1)
        with pytest.raises(CorpusError, match="cannot be read as this corpus.*expected LibriSpeech's folders"):
            import_librispeech(tmp_path)


class TestMusan:
    @pytest.fixture
    def musan(self, tmp_path: Path, make_wav: MakeWav) -> Path:
        root = tmp_path / "musan"
        for number, path in enumerate(
            (
                "noise/free-sound/noise-free-sound-0000.wav",
                "noise/sound-bible/noise-sound-bible-0000.wav",
                "music/fma/music-fma-0000.wav",
                "music/fma/music-fma-0001.wav",
                "music/fma/music-fma-0002.wav",
                "speech/librivox/speech-librivox-0000.wav",
            )
        ):
            make_wav(root / path, 0.1, kind="noise", seed=number)
        (root / "music/fma/ANNOTATIONS").write_text(
            "music-fma-0000 rock Y band\nmusic-fma-0001 pop N band\nmusic-fma-0002 pop N other\n"
        )
        return tmp_path

    def test_noise_and_music_without_speech(self, musan: Path) -> None:
        listing = import_musan(musan)
        found = by_id(listing)
        assert {entry.kind for entry in listing.entries} == {"noise"}
        assert sorted(found) == [
            "music/fma/music-fma-0000",
            "music/fma/music-fma-0001",
            "music/fma/music-fma-0002",
            "noise/free-sound/noise-free-sound-0000",
            "noise/sound-bible/noise-sound-bible-0000",
        ]
        together = {name[-4:]: entry.recording for name, entry in found.items() if "music" in name}
        assert together["0000"] == together["0001"] != together["0002"]
        assert listing.rejected == []
        assert any("speech/ was left out" in note for note in listing.notes)

    def test_annotations_that_are_no_text(self, musan: Path) -> None:
        (musan / "musan/music/fma/ANNOTATIONS").write_bytes(b"music-fma-0000 rock Y Bj\xf6rk\n")
        with pytest.raises(CorpusError, match="ANNOTATIONS is not a text file in UTF-8; unpack the corpus again"):
            import_musan(musan)

    def test_broken_recordings_do_not_stop_it(self, musan: Path) -> None:
        (musan / "musan/noise/free-sound/noise-free-sound-0000.wav").write_text("no")
        (musan / "musan/music/fma/music-fma-0001.wav").write_bytes(b"")
        listing = import_musan(musan / "musan")
        assert len(by_id(listing)) == 3
        assert reasons(listing) == {
            "noise/free-sound/noise-free-sound-0000.wav": "unreadable",
            "music/fma/music-fma-0001.wav": "empty",
        }


class TestRirs:
    @pytest.fixture
    def rirs(self, tmp_path: Path, make_wav: MakeWav) -> Path:
        root = tmp_path / "RIRS_NOISES"
        for number, path in enumerate(
            (
                "pointsource_noises/noise-free-sound-0000.wav",
                "real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav",
                "real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla.wav",
                "real_rirs_isotropic_noises/air_type1_air_binaural_aula_carolina_1.wav",
                "simulated_rirs/smallroom/Room001/Room001-00001.wav",
                "simulated_rirs/smallroom/Room001/Room001-00002.wav",
                "simulated_rirs/largeroom/Room001/Room001-00001.wav",
            )
        ):
            make_wav(root / path, 0.1, kind="noise", seed=number)
        return tmp_path

    def test_kinds_and_rooms(self, rirs: Path) -> None:
        listing = import_rirs(rirs)
        found = by_id(listing)
        assert {name.split("/")[-1]: entry.kind for name, entry in found.items() if "sim" not in name} == {
            "noise-free-sound-0000": "noise",
            "RVB2014_type1_noise_largeroom1_1": "noise",
            "RVB2014_type1_rir_largeroom1_far_angla": "rir",
        }
        rooms = {name: entry.recording for name, entry in found.items() if "sim" in name}
        assert rooms["simulated_rirs/smallroom/Room001/Room001-00001"] == "simulated_rirs/smallroom/Room001"
        assert sorted(rooms.values()).count("simulated_rirs/smallroom/Room001") == 2
        assert len(rooms) == 3
        assert reasons(listing) == {"real_rirs_isotropic_noises/air_type1_air_binaural_aula_carolina_1.wav": "unlisted"}

    def test_parts_may_be_missing(self, rirs: Path) -> None:
        (rirs / "RIRS_NOISES/pointsource_noises/noise-free-sound-0000.wav").unlink()
        (rirs / "RIRS_NOISES/pointsource_noises").rmdir()
        assert len(by_id(import_rirs(rirs))) == 5
