"""The generators' up-sampling convolution against the two steps it stands for."""

import pytest
import torch
import torch.nn.functional as F

from methods.generators import UpsampledConv2d, dfme_generator, ideal_generator, to_image


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (7, 7), (3, 5)])
def test_an_upsampled_convolution_is_exactly_an_upsampling_and_a_convolution(
    bias: bool, height: int, width: int
) -> None:
    layer = UpsampledConv2d(3, 5, 3, padding=1, bias=bias).double()
    maps = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(F.interpolate(maps, scale_factor=2), layer.weight, layer.bias, padding=1)
    fused = layer(maps)
    assert torch.allclose(fused, plain, atol=1e-12)
    out = torch.randn_like(plain)
    for wanted, found in zip(
        torch.autograd.grad((plain * out).sum(), [maps, layer.weight]),
        torch.autograd.grad((fused * out).sum(), [maps, layer.weight]),
        strict=True,
    ):
        assert torch.allclose(wanted, found, atol=1e-10)


def test_its_phases_have_the_gradients_that_slices_of_all_of_them_would_have_bit_for_bit() -> None:
    layer, maps = UpsampledConv2d(3, 5, 3, padding=1, bias=False), torch.randn(2, 3, 7, 7, requires_grad=True)
    sums = torch.tensor(layer.SUMS)
    kernels = torch.einsum("arh,bcw,oihw->aboirc", sums, sums, layer.weight).flatten(0, 2)
    phases = F.conv2d(maps, kernels, padding=1).view(2, 2, 2, 5, 8, 8)
    plain = torch.empty(2, 5, 14, 14)
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        plain[:, :, a::2, b::2] = phases[:, a, b, :, a : a + 7, b : b + 7]
    fused, out = layer(maps), torch.randn(2, 5, 14, 14)
    assert torch.equal(fused, plain)
    for wanted, found in zip(
        torch.autograd.grad((plain * out).sum(), [maps, layer.weight]),
        torch.autograd.grad((fused * out).sum(), [maps, layer.weight]),
        strict=True,
    ):
        assert torch.equal(wanted, found)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_generators_make_images_of_the_shape_asked_for(shape: tuple[int, int, int]) -> None:
    noise = torch.randn(6, 10)
    images = ideal_generator(10, 4, shape)(noise)
    assert images.shape == (6, *shape)
    assert images.min() >= 0
    assert images.max() <= 1
    maps = dfme_generator(10, 4, shape)(noise)
    assert maps.shape == (6, *shape)
    assert maps.abs().max() > 1
    assert 0 <= to_image(maps).min() <= to_image(maps).max() <= 1


def test_a_side_that_is_no_multiple_of_4_is_refused() -> None:
    with pytest.raises(ValueError, match="10 x 8 pixels: wanted multiples of 4"):
        ideal_generator(10, 4, (1, 10, 8))
