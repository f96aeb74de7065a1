"""A model of Parvox's own, exported for real, behind the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_model
from bad_recordings import voice

from parvox.audio import Audio
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.golden import DEFAULT_SIGNAL, golden_signal
from parvox.runtime.model_file import Golden, seal
from parvox.runtime.verify import Verifier

pytestmark = pytest.mark.slow


def test_the_runtime_gives_what_pytorch_gives(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from parvox.export.onnx_graph import to_onnx
    from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel

    torch.manual_seed(0)
    settings = ENCODERS["depthwise_tdnn"].settings
    encoder = settings()
    model = SpeakerModel(
        ModelSettings(
            encoder=encoder,
            pooling=POOLINGS[encoder.default_pooling].settings(),
            embedding_dim=encoder.default_embedding_dim,
            head=encoder.default_head,
        )
    ).eval()

    def pytorch(samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(samples)[None]).embedding[0].numpy())

    exported = to_onnx(model)
    golden = pytorch(golden_signal(DEFAULT_SIGNAL, 16000))
    contract = tiny_model.contract(
        tiny_model.bare_model(),
        name="exported",
        embedding_dim=len(golden),
        min_samples=model.min_samples,
        golden=Golden(DEFAULT_SIGNAL, tuple(map(float, golden)), 1e-4),
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(seal(tiny_model.unsealed(exported, contract.to_json())))

    embedder = SpeakerEmbedder.load(path)
    recordings = [voice(seconds, hz) for seconds, hz in ((0.6, 110), (0.62, 150), (1.1, 200), (3.0, 95))]
    recordings.append(recordings[0][: model.min_samples])
    got = embedder.embed_batch(recordings)
    wanted = np.stack([pytorch(samples) for samples in recordings])
    cosine = (got * wanted).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(wanted, axis=1)
    assert 1 - cosine.min() < 1e-5
    one, other = (Audio(recordings[i], 16000, 16000, 1, len(recordings[i]) / 16000, f"{i}.wav") for i in (2, 3))
    score = Verifier(embedder, threshold=0.0).compare(one, other).score
    assert score == pytest.approx(
        wanted[2] @ wanted[3] / np.linalg.norm(wanted[2]) / np.linalg.norm(wanted[3]), abs=1e-4
    )
