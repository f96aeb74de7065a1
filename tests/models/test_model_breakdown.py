"""Layers of a model against its totals and against a count by hand."""

import pytest

from parvox.models import SpeakerModel
from parvox.models.breakdown import layers
from parvox.models.catalogue import configuration
from parvox.models.cost import cost
from parvox.models.xvector import XVectorSettings


@pytest.mark.parametrize("name", ["bc_cmt", "bc_cmt-2d", "ecapa_tdnn", "memory_attention", "redimnet2-b0", "xvector"])
def test_layers_sum_to_the_whole(name):
    model = SpeakerModel(configuration(name).settings())
    found, whole = layers(model), cost(model)
    assert sum(layer.parameters for layer in found) == whole.parameters
    assert sum(layer.macs for layer in found) == whole.macs + whole.feature_macs
    assert [layer.name for layer in found if "." not in layer.name] == ["frontend", "encoder", "pooling", "head"]
    assert len({layer.name for layer in found}) == len(found)
    assert all(layer.parameters >= 0 and layer.macs >= 0 for layer in found)


def test_an_x_vector_by_hand():
    model = SpeakerModel(configuration("xvector").settings())
    found = {layer.name: layer for layer in layers(model)}
    frames, inputs = 98, 80
    settings = XVectorSettings()
    convolutions = [layer for layer in found.values() if layer.type == "Conv1d"]
    assert len(convolutions) == 5
    for layer, channels, kernel, dilation in zip(
        convolutions, settings.channels, settings.kernels, settings.dilations, strict=True
    ):
        frames -= dilation * (kernel - 1)
        assert layer.output == (1, channels, frames)
        assert layer.macs == channels * inputs * kernel * frames
        assert channels * inputs * kernel <= layer.parameters <= channels * (inputs * kernel + 1)
        inputs = channels
    assert found["pooling"].output == (1, 3000)
    assert (found["head.0"].macs, found["head.0"].parameters) == (3000 * 512, 3001 * 512)
