"""Teachers from Hugging Face's transformers library: WavLM, w2v-BERT, wav2vec 2.0, HuBERT and their like.

From local folders and safetensors only: nothing is downloaded, unpickled, or run from the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parvox.distillation.contract import Side
from parvox.errors import MissingExtraError, ModelFileError
from parvox.models.frontend import Fbank, FbankSettings
from parvox.training.run import file_checksum
from parvox.training.teacher_settings import TransformersSettings
from parvox.training.teachers.contract import Teacher

_TRIED_S = 1.0
_TINY = 1e-7  # under variances, as the library has it
_UNUSED = "masked_spec_embed"  # of training alone, so that some checkpoints lack it

Feed = Callable[[Tensor], dict[str, Tensor]]


class TransformersTeacher(Teacher):
    """A speech model of the transformers library, its embedding the x-vector head's or the mean over frames.

    Args:
        folder: What `save_pretrained` wrote: configuration, feature extractor's configuration and safetensors.
        settings: Which layers are read.
        device: Where it runs.

    Raises:
        MissingExtraError: the library is not installed.
        ModelFileError: the folder holds no such model, its weights are incomplete or in no safe format, or it is of a
            kind that Parvox cannot feed.
    """

    def __init__(self, folder: Path, settings: TransformersSettings, device: torch.device) -> None:
        if not folder.is_dir():
            raise ModelFileError(
                f"hf:{folder} is not a folder; expected what save_pretrained wrote: config.json, "
                "preprocessor_config.json and model.safetensors"
            )
        extractor, self._model, head = _load(folder, bool(settings.layers))
        self._model = self._model.to(device).eval().requires_grad_(False)
        self._folder, self.settings = folder, settings
        self._feed = _feed(folder, extractor, device)
        self.sample_rate_hz = int(extractor.sampling_rate)
        self.parameters = sum(parameter.numel() for parameter in self._model.parameters())
        layers = settings.layers or (-1,)
        self._read = _read_head if head else self._read_frames
        self._layers = _expect_layers(folder, layers, int(self._model.config.num_hidden_layers))
        self._weights = torch.tensor(settings.layer_weights or [1.0] * len(layers), device=device)
        self.told = f"{settings!r} {_checksum(folder, '*.json')}"
        self.checksum = hashlib.sha256(f"{_checksum(folder, '*.safetensors')} {self.told}".encode()).hexdigest()
        self.side = Side(f"hf:{folder}", self._try(device), 0)
        read = "the x-vector head" if head else f"the mean over frames of layer {', '.join(map(str, layers))}"
        name = type(self._model).__name__
        self.note = f"hf:{folder}: {name} at {self.sample_rate_hz} Hz, embedding from {read}"

    @torch.no_grad()
    def embed(self, waveforms: Tensor) -> Tensor:
        """See `Teacher.embed`."""
        with torch.autocast(waveforms.device.type, enabled=False):
            fed = self._feed(waveforms.float())
        return self._read(self._model, fed)

    def _read_frames(self, model: Any, fed: dict[str, Tensor]) -> Tensor:
        if self._layers == (-1,):
            frames: Tensor = model(**fed).last_hidden_state
            return frames.mean(1)
        states = model(**fed, output_hidden_states=True).hidden_states
        means = torch.stack([states[layer].mean(1) for layer in self._layers], -1)
        return (means * self._weights).sum(-1) / self._weights.sum()

    def _try(self, device: torch.device) -> int:
        """Embed noise; the size of the embedding."""
        noise = 0.1 * torch.randn(1, round(_TRIED_S * self.sample_rate_hz), generator=torch.Generator().manual_seed(0))
        try:
            embedding = self.embed(noise.to(device))
        except Exception as error:  # whatever a model of another kind may raise
            raise ModelFileError(
                f"hf:{self._folder}: {type(self._model).__name__} does not give frames for {_TRIED_S} s of speech "
                f"({' '.join(str(error).split())[:160]}); expected a speech encoder such as WavLM, w2v-BERT or HuBERT"
            ) from error
        if embedding.dim() != 2 or not embedding.isfinite().all():
            raise ModelFileError(
                f"hf:{self._folder}: gave {tuple(embedding.shape)} for one utterance of noise; expected a finite "
                "embedding"
            )
        return embedding.shape[1]


def _read_head(model: Any, fed: dict[str, Tensor]) -> Tensor:
    embeddings: Tensor = model(**fed).embeddings
    return embeddings


def _load(folder: Path, frames: bool) -> tuple[Any, Any, bool]:
    """Feature extractor, model, and whether its x-vector head gives the embedding."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"hf:{folder} ({error.name} is not installed)", "transformers") from error
    transformers.utils.logging.set_verbosity_error()  # what goes wrong is raised; it need not be printed as well
    transformers.utils.logging.disable_progress_bar()
    for name in ("config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise ModelFileError(f"hf:{folder} holds no {name}; expected what save_pretrained wrote")
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **local)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **local)
        head = not frames and any(name.endswith("ForXVector") for name in config.architectures or ())
        kind = transformers.AutoModelForAudioXVector if head else transformers.AutoModel
        model, report = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **local)
    except Exception as error:  # the library's errors share no base class
        raise ModelFileError(
            f"hf:{folder}: transformers {transformers.__version__} cannot load it "
            f"({' '.join(str(error).split())[:200]}); expected config.json and model.safetensors of a speech model"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if _UNUSED not in name)
    if missing or report["mismatched_keys"]:
        raise ModelFileError(
            f"hf:{folder}: {len(missing) + len(report['mismatched_keys'])} weights are missing or of another shape"
            f"{f', such as {missing[0]}' if missing else ''}; get the whole checkpoint"
        )
    return extractor, model, head


def _feed(folder: Path, extractor: Any, device: torch.device) -> Feed:
    """What turns waveforms (batch, samples) into a model's input, as its feature extractor would, on the device."""
    kind = type(extractor).__name__
    if kind == "Wav2Vec2FeatureExtractor":

        def waveform(waveforms: Tensor) -> dict[str, Tensor]:
            if not extractor.do_normalize:
                return {"input_values": waveforms}
            centred = waveforms - waveforms.mean(1, keepdim=True)
            return {"input_values": centred / (waveforms.var(1, correction=0, keepdim=True) + _TINY).sqrt()}

        return waveform
    if kind == "SeamlessM4TFeatureExtractor":
        settings = FbankSettings(
            bins=extractor.num_mel_bins, sample_rate_hz=extractor.sampling_rate, window="povey", high_hz=0.0
        )
        fbank, stride = Fbank(settings).to(device), extractor.stride

        def features(waveforms: Tensor) -> dict[str, Tensor]:
            energies = fbank.log_energies(waveforms)
            centred = energies - energies.mean(1, keepdim=True)
            whole = centred / (energies.var(1, keepdim=True) + _TINY).sqrt()
            whole = whole[:, : whole.shape[1] // stride * stride]
            return {"input_features": whole.reshape(len(whole), -1, stride * whole.shape[2])}

        return features
    raise ModelFileError(
        f"hf:{folder}: feature extractor {kind} given; known are Wav2Vec2FeatureExtractor (WavLM, wav2vec 2.0, HuBERT "
        "…) and SeamlessM4TFeatureExtractor (w2v-BERT 2.0)"
    )


def _expect_layers(folder: Path, layers: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The layers, if the model has them."""
    for layer in layers:
        if not -count - 1 <= layer <= count:
            raise ModelFileError(
                f"hf:{folder}: transformers.layers {layer} given; its {count} layers are 1 to {count}, 0 is what goes "
                "in, negative ones count from the end"
            )
    return layers


def _checksum(folder: Path, files: str) -> str:
    """SHA-256 over the checksums of its files of a kind."""
    parts = [file_checksum(path) for path in sorted(folder.glob(files))]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
