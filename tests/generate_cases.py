#!/usr/bin/env python3
"""Writes cases.json, the one table of convolutions that the Rust, C++ and Python tests share.

    python3 tests/generate_cases.py            rewrite cases.json
    python3 tests/generate_cases.py --check    exit 1 if the committed file is stale

A hand-written part names every situation that has its own code path somewhere; a seeded sweep covers what nobody
thought of. Sizes are small: all passes of all cases together are a few GFLOP, so a software driver can run them.
"""

import json
import math
import pathlib
import random
import sys

TABLE = pathlib.Path(__file__).with_name("cases.json")
SWEEP = 330
VARIANTS = 120
OFF_TILE_CHANNELS = (1, 3, 5, 17, 33, 65, 127, 130)  # tiles are powers of two from 8 to 256
MAX_SIZE = 2**31 - 1


def pair(value):
    return list(value) if isinstance(value, (tuple, list)) else [value, value]


def conv(
    name, n, c, h, w, k, kernel, stride=1, padding=0, dilation=1, groups=1, bias=True, mode="zeros", transposed=False,
    output_padding=0,
):  # fmt: skip
    """One convolution; `padding` is one number, (height, width) or ((top, bottom), (left, right)).

    The last three are left out of the table where they are at their default.
    """
    rare = {"padding_mode": mode} if mode != "zeros" else {}
    if transposed:
        rare["transposed"] = True
    if pair(output_padding) != [0, 0]:
        rare["output_padding"] = pair(output_padding)
    return {
        "name": name,
        "n": n,
        "c": c,
        "h": h,
        "w": w,
        "k": k,
        "kernel": pair(kernel),
        "stride": pair(stride),
        "padding": [pair(axis) for axis in pair(padding)],
        "dilation": pair(dilation),
        "groups": groups,
        "bias": bias,
        **rare,
    }


def output(case):
    """(P, Q), or None if there is none: the kernel is larger than the padded input, or padding eats the output up."""
    sizes = []
    for axis, size in enumerate((case["h"], case["w"])):
        window = case["dilation"][axis] * (case["kernel"][axis] - 1) + 1
        if case.get("transposed"):
            extra = case.get("output_padding", [0, 0])[axis]
            sizes.append((size - 1) * case["stride"][axis] + window + extra - sum(case["padding"][axis]))
            if sizes[-1] < 1:
                return None
            continue
        room = size + sum(case["padding"][axis]) - window
        if room < 0:
            return None
        sizes.append(room // case["stride"][axis] + 1)
    return sizes


def flops(case):
    """Of the forward pass; each gradient costs as much again."""
    p, q = (case["h"], case["w"]) if case.get("transposed") else output(case)
    r, s = case["kernel"]
    return 2 * case["n"] * case["k"] * p * q * case["c"] // case["groups"] * r * s


# ---------------------------------------------------------------------------------------------- written by hand


def channels():
    for i, c in enumerate(OFF_TILE_CHANNELS):
        for j, k in enumerate(OFF_TILE_CHANNELS):
            yield conv(f"channels_{c}_to_{k}_1x1", 2, c, 6, 7, k, 1, bias=(i + j) % 2 == 0)
        k = OFF_TILE_CHANNELS[-1 - i]
        yield conv(f"channels_{c}_to_{k}_3x3", 1, c, 5, 7, k, 3, padding=1, bias=i % 2 == 0)
    for c in (4, 16, 32, 64, 128):
        yield conv(f"channels_{c}_to_{c}_3x3", 1, c, 7, 8, c, 3, padding=1)
    yield conv("channels_256_to_64_1x1", 1, 256, 8, 8, 64, 1, bias=False)
    yield conv("channels_64_to_256_1x1", 1, 64, 8, 8, 256, 1)
    yield conv("pointwise_plane_of_odd_size", 3, 24, 5, 5, 40, 1)
    yield conv("pointwise_plane_divisible_by_4", 3, 24, 8, 8, 40, 1)
    yield conv("pointwise_padded", 2, 6, 5, 5, 7, 1, padding=1)
    yield conv("pointwise_dilated_is_not_dilated", 2, 6, 5, 5, 7, 1, dilation=3)


def kernels():
    for r in range(1, 8):
        for s in range(1, 8):
            yield conv(
                f"kernel_{r}x{s}", 2, 4, 10, 11, 6, (r, s), padding=((r - 1) // 2, (s - 1) // 2), bias=(r + s) % 2 == 0
            )
    for r in (2, 4, 6):  # 'same' padding of an even kernel has its odd zero at the end
        before = (r - 1) // 2
        yield conv(f"kernel_{r}x{r}_same", 1, 5, 9, 9, 8, r, padding=((before, r - 1 - before),) * 2)
    yield conv("kernel_11x11", 1, 2, 16, 16, 5, 11, padding=5)
    yield conv("kernel_13x1", 1, 4, 20, 6, 4, (13, 1), padding=(6, 0))
    yield conv("kernel_1x31", 1, 3, 4, 40, 4, (1, 31), padding=(0, 15))


def strides():
    for kernel in ((1, 1), (2, 2), (3, 3), (4, 5)):
        for sh in (1, 2, 3):
            for sw in (1, 2, 3):
                r, s = kernel
                yield conv(
                    f"stride_{sh}x{sw}_kernel_{r}x{s}", 2, 6, 13, 14, 9, kernel, (sh, sw), (r // 2, s // 2),
                    bias=(sh + sw) % 2 == 0,
                )  # fmt: skip
    yield conv("stride_2_leaves_a_last_row_unread", 1, 4, 8, 8, 5, 3, stride=2)
    yield conv("stride_2_even_input_3x3_pad1", 2, 16, 8, 8, 24, 3, stride=2, padding=1)
    yield conv("stride_3_kernel_1x1", 1, 7, 10, 11, 5, 1, stride=3)
    yield conv("stride_3_kernel_2x2", 1, 7, 10, 11, 5, 2, stride=3)
    yield conv("stride_5_kernel_3x3", 2, 5, 17, 18, 6, 3, stride=5)
    yield conv("stride_7_kernel_3x2_padded", 2, 5, 17, 18, 6, (3, 2), stride=7, padding=1)
    yield conv("stride_4x1_kernel_3x3", 1, 8, 15, 9, 8, 3, stride=(4, 1), padding=1)
    yield conv("stride_larger_than_input", 3, 5, 4, 4, 6, 2, stride=9)
    yield conv("stride_larger_than_kernel_grouped", 1, 8, 11, 11, 8, 2, stride=4, groups=4)


def paddings():
    sides = {
        "top": ((2, 0), (0, 0)),
        "bottom": ((0, 2), (0, 0)),
        "left": ((0, 0), (2, 0)),
        "right": ((0, 0), (0, 2)),
        "all_different": ((0, 1), (2, 3)),
        "all_different_reversed": ((3, 2), (1, 0)),
    }
    for name, padding in sides.items():
        yield conv(f"padding_{name}", 2, 5, 8, 9, 7, 3, padding=padding)
        yield conv(f"padding_{name}_stride_2", 1, 5, 8, 9, 7, (3, 4), 2, padding, bias=False)
        yield conv(f"padding_{name}_depthwise", 1, 6, 8, 9, 6, 3, 1, padding, groups=6)
    yield conv("padding_larger_than_kernel", 1, 4, 6, 7, 5, 3, padding=5)
    yield conv("padding_larger_than_kernel_1x1", 2, 4, 3, 3, 5, 1, padding=2)
    yield conv("padding_larger_than_kernel_one_side", 1, 4, 6, 7, 5, 2, padding=((7, 0), (0, 6)))
    yield conv("padding_larger_than_kernel_stride_3", 1, 4, 6, 7, 5, 3, stride=3, padding=((8, 4), (4, 8)))
    yield conv("padding_larger_than_input", 1, 3, 2, 2, 4, 3, padding=6)
    yield conv("padding_larger_than_kernel_depthwise", 1, 5, 4, 4, 5, 3, padding=6, groups=5)
    yield conv("padding_full_correlation", 2, 6, 7, 7, 4, 3, padding=2)


def dilations():
    for dh in (1, 2, 3):
        for dw in (1, 2, 3):
            yield conv(f"dilation_{dh}x{dw}_kernel_3x3", 1, 5, 12, 13, 8, 3, padding=(dh, dw), dilation=(dh, dw))
            yield conv(
                f"dilation_{dh}x{dw}_kernel_2x4_stride_2x3", 2, 5, 12, 13, 6, (2, 4), (2, 3), 1, (dh, dw), bias=False
            )
    yield conv("dilation_shares_a_factor_with_stride", 1, 6, 14, 14, 6, 3, stride=2, padding=2, dilation=2)
    yield conv("dilation_3_stride_3", 1, 6, 15, 15, 6, 3, stride=3, padding=3, dilation=3)
    yield conv("dilation_2_stride_3_depthwise", 1, 6, 15, 15, 6, 3, 3, 2, 2, groups=6)
    yield conv("dilation_12_atrous", 1, 8, 26, 26, 4, 3, padding=12, dilation=12)
    yield conv("dilation_reaches_over_the_input", 1, 4, 5, 5, 4, 3, padding=7, dilation=7)


def groups():
    for multiplier in (1, 2, 3):
        for r, s in ((1, 1), (3, 3), (5, 5), (7, 7)):
            for stride in (1, 2):
                yield conv(
                    f"depthwise_multiplier{multiplier}_{r}x{s}_s{stride}", 2, 10, 12, 13, 10 * multiplier, (r, s),
                    stride, (r // 2, s // 2), groups=10, bias=stride == 1,
                )  # fmt: skip
    for c in (1, 33, 65, 130):
        yield conv(f"depthwise_channels_{c}", 1, c, 9, 10, c, 3, padding=1, groups=c)
    yield conv("depthwise_kernel_1x7", 1, 12, 8, 20, 12, (1, 7), padding=(0, 3), groups=12)
    yield conv("depthwise_kernel_2x2_stride_2", 1, 12, 8, 20, 12, 2, stride=2, groups=12)
    for c, k, count in (
        (8, 12, 4), (4, 2, 2), (32, 64, 2), (33, 66, 3), (64, 64, 8), (64, 32, 16), (130, 26, 13), (35, 10, 5),
        (17, 51, 17), (34, 17, 17), (66, 2, 2), (2, 130, 2), (96, 96, 32),
    ):  # fmt: skip
        yield conv(f"groups_{count}_channels_{c}_to_{k}_3x3", 1, c, 8, 9, k, 3, padding=1, groups=count)
    for c, k, count in ((8, 12, 4), (130, 65, 65), (64, 128, 2), (51, 34, 17)):
        yield conv(f"groups_{count}_channels_{c}_to_{k}_1x1", 2, c, 7, 7, k, 1, groups=count, bias=False)
    yield conv("groups_4_stride_2_dilation_2", 2, 16, 13, 12, 24, 3, 2, 2, 2, 4)
    yield conv("groups_3_kernel_3x5_stride_1x3", 2, 9, 10, 17, 15, (3, 5), (1, 3), (1, 2), groups=3)


def batches():
    yield conv("batch_0", 0, 4, 6, 7, 5, 3, padding=1)
    yield conv("batch_0_no_bias", 0, 4, 6, 7, 5, 3, bias=False)
    yield conv("batch_0_pointwise", 0, 4, 6, 7, 5, 1)
    yield conv("batch_0_depthwise_stride_2", 0, 6, 9, 9, 6, 3, 2, 1, groups=6)
    yield conv("batch_0_groups_2", 0, 6, 9, 9, 4, 3, groups=2)
    yield conv("batch_1", 1, 4, 6, 7, 5, 3, padding=1)
    yield conv("batch_17", 17, 3, 6, 6, 5, 3, padding=1)
    yield conv("batch_64_tiny_planes", 64, 4, 2, 2, 8, 2)
    yield conv("batch_257_one_pixel", 257, 8, 1, 1, 10, 1)


def one_dimensional():
    yield conv("one_dimensional_kernel_3", 2, 8, 1, 50, 12, (1, 3), padding=(0, 1))
    yield conv("one_dimensional_kernel_5_stride_2", 2, 8, 1, 51, 12, (1, 5), (1, 2), (0, 2))
    yield conv("one_dimensional_causal_dilation_3", 2, 6, 1, 40, 6, (1, 3), 1, ((0, 0), (6, 0)), (1, 3))
    yield conv("one_dimensional_depthwise_multiplier_2", 1, 9, 1, 64, 18, (1, 7), padding=(0, 3), groups=9)
    yield conv("one_dimensional_pointwise", 3, 17, 1, 33, 20, 1)
    yield conv("one_dimensional_whole_signal", 2, 5, 1, 37, 4, (1, 37))
    yield conv("one_dimensional_long_signal", 1, 1, 1, 4000, 8, (1, 9), (1, 4), (0, 4))
    yield conv("one_dimensional_groups_2", 2, 6, 1, 31, 10, (1, 4), (1, 3), groups=2, bias=False)
    yield conv("one_dimensional_stride_larger_than_kernel", 1, 4, 1, 30, 4, (1, 2), (1, 5))
    yield conv("one_dimensional_column", 2, 5, 60, 1, 6, (5, 1), (2, 1), (2, 0))


def reductions():
    """Sums so long that one chain of fp32 additions misses the contract."""
    yield conv("long_forward_reduction_4608", 1, 512, 7, 7, 6, 3, padding=1)
    yield conv("long_forward_reduction_4608_one_pixel", 3, 512, 3, 3, 20, 3, bias=False)
    yield conv("long_forward_reduction_5000_pointwise", 1, 5000, 2, 3, 9, 1)
    yield conv("long_forward_reduction_25600", 1, 1024, 5, 5, 3, 5)
    yield conv("long_forward_reduction_6272_grouped", 1, 256, 9, 9, 4, 7, padding=1, groups=2)
    yield conv("long_input_reduction_4608", 1, 6, 7, 7, 512, 3, padding=1)
    yield conv("long_input_reduction_5000_pointwise", 1, 9, 2, 3, 5000, 1)
    yield conv("long_input_reduction_6272_strided", 1, 4, 9, 9, 128, 7, stride=2, padding=3)
    yield conv("long_weight_reduction_51076", 4, 2, 113, 113, 3, 3, padding=1)
    yield conv("long_weight_reduction_52900_pointwise", 1, 1, 230, 230, 2, 1)
    yield conv("long_weight_reduction_50176_wide", 1, 16, 224, 224, 16, 1)  # wide enough for the norm to count
    yield conv("long_weight_reduction_50000_batch", 50000, 2, 1, 1, 3, 1)
    yield conv("long_weight_reduction_65536_depthwise", 4, 3, 128, 128, 3, 3, padding=1, groups=3)
    yield conv("long_weight_reduction_54450_strided", 2, 1, 331, 331, 2, 2, stride=2)
    yield conv("long_weight_reduction_60000_one_dimensional", 3, 1, 1, 20000, 2, (1, 3), padding=(0, 1))


def extents():
    yield conv("one_pixel_output_3x3", 2, 7, 3, 3, 9, 3)
    yield conv("one_pixel_output_7x5", 2, 7, 7, 5, 9, (7, 5))
    yield conv("one_pixel_output_padded", 3, 5, 2, 3, 6, (4, 5), padding=1)
    yield conv("one_pixel_output_dilated", 1, 5, 7, 5, 6, (4, 3), dilation=2)
    yield conv("one_pixel_output_depthwise", 2, 20, 7, 7, 20, 7, groups=20)
    yield conv("one_pixel_output_stride_2", 2, 6, 4, 4, 5, 3, stride=2)
    yield conv("one_pixel_input_3x3", 2, 6, 1, 1, 5, 3, padding=1)
    yield conv("one_pixel_input_1x1", 1, 1, 1, 1, 1, 1, bias=False)
    yield conv("two_by_two_input", 1, 6, 2, 2, 5, 3, padding=1)
    yield conv("wide_plane", 1, 3, 2, 500, 4, 3, padding=1)
    yield conv("tall_plane", 1, 3, 500, 2, 4, 3, padding=1)
    yield conv("plane_crosses_a_tile_by_one", 1, 4, 17, 65, 8, 3, padding=1)
    yield conv("plane_short_of_a_tile_by_one", 1, 4, 15, 63, 8, 3, padding=1)
    yield conv("plane_of_exact_tiles", 1, 4, 16, 64, 8, 3, padding=1)
    yield conv("whole_planes_7x7", 3, 9, 7, 7, 66, 3, padding=1)
    yield conv("whole_planes_7x7_of_exact_tiles", 2, 8, 7, 7, 64, 3, padding=1)
    yield conv("whole_planes_7x7_padded_otherwise", 2, 5, 5, 8, 6, 3, padding=(2, (1, 0)))
    yield conv("whole_rows_14", 2, 5, 14, 14, 10, 3, padding=1)
    yield conv("whole_rows_28", 1, 9, 6, 28, 65, 3, padding=1)
    yield conv("whole_rows_28_of_three_tiles", 2, 17, 20, 28, 5, 3, padding=1)
    yield conv("whole_planes_7x7_of_many_tiles", 1, 264, 7, 7, 5, 3, padding=1)
    yield conv("many_pixels_in_whole_vectors", 3, 1, 96, 88, 2, 1)
    yield conv("many_pixels_one_by_one", 3, 1, 93, 91, 2, 1)


def networks():
    """Layers of known networks, with smaller planes or fewer channels."""
    yield conv("resnet_stem", 1, 3, 40, 40, 16, 7, 2, 3, bias=False)
    yield conv("resnet_basic_block", 1, 64, 12, 12, 64, 3, padding=1, bias=False)
    yield conv("resnet_downsample", 2, 48, 14, 14, 96, 1, stride=2, bias=False)
    yield conv("resnext_block", 1, 64, 10, 10, 64, 3, padding=1, groups=32, bias=False)
    yield conv("vgg_first", 1, 3, 32, 32, 24, 3, padding=1)
    yield conv("mobilenet_depthwise_s2", 1, 48, 15, 15, 48, 3, 2, 1, groups=48, bias=False)
    yield conv("mobilenet_expand", 1, 24, 14, 14, 144, 1, bias=False)
    yield conv("convnext_depthwise_7x7", 1, 32, 14, 14, 32, 7, padding=3, groups=32)
    yield conv("vit_patch_embedding_16x16", 1, 3, 32, 32, 48, 16, stride=16)
    yield conv("inception_1x7", 1, 32, 9, 9, 24, (1, 7), padding=(0, 3))
    yield conv("inception_7x1", 1, 32, 9, 9, 24, (7, 1), padding=(3, 0))
    yield conv("unet_bottom", 1, 96, 4, 4, 96, 3, padding=1)
    yield conv("yolo_grey_stem_6x6", 1, 1, 32, 32, 12, 6, 2, 2)
    yield conv("whisper_first", 1, 80, 1, 60, 48, (1, 3), padding=(0, 1))
    yield conv("wav2vec_first", 1, 1, 1, 2000, 16, (1, 10), (1, 5), bias=False)
    yield conv("deeplab_atrous_6", 1, 32, 14, 14, 16, 3, padding=6, dilation=6)


MODES = ("reflect", "replicate", "circular")


def padding_modes():
    for mode in MODES:

        def padded(name, *sizes, mode=mode, **options):
            return conv(f"{mode}_{name}", *sizes, mode=mode, **options)

        yield padded("3x3", 2, 5, 6, 7, 9, 3, padding=1)
        yield padded("5x3_no_bias", 1, 4, 7, 6, 6, (5, 3), padding=(2, 1), bias=False)
        yield padded("4x4_same", 1, 5, 7, 8, 6, 4, padding=((1, 2), (1, 2)))
        yield padded("all_different", 2, 3, 6, 7, 5, 3, padding=((1, 3), (4, 2)))
        yield padded("top", 1, 3, 5, 5, 4, 2, padding=((2, 0), (0, 0)))
        yield padded("right", 1, 3, 5, 5, 4, 2, padding=((0, 0), (0, 3)))
        yield padded("stride_2", 1, 6, 9, 8, 5, 3, stride=2, padding=1)
        yield padded("stride_3x2_leaves_padding_unread", 2, 4, 8, 9, 6, 2, stride=(3, 2), padding=((0, 2), (1, 1)))
        yield padded("dilation_2", 1, 4, 7, 8, 6, 3, padding=2, dilation=2)
        yield padded("dilation_1x3_stride_2", 1, 4, 9, 9, 6, 3, 2, (1, 3), (1, 3))
        yield padded("groups_2", 1, 6, 6, 5, 8, 3, padding=1, groups=2)
        yield padded("depthwise", 2, 7, 6, 9, 7, 3, padding=1, groups=7)
        yield padded("depthwise_multiplier_2_stride_2", 1, 5, 8, 9, 10, 5, 2, 2, groups=5)
        yield padded("pointwise", 2, 5, 4, 4, 6, 1, padding=2)
        yield padded("one_dimensional", 2, 6, 1, 20, 8, (1, 5), padding=(0, 2))
        yield padded("one_dimensional_causal_dilation_2", 1, 4, 1, 15, 6, (1, 3), 1, ((0, 0), (4, 0)), (1, 2))
        yield padded("channels_33_to_65", 1, 33, 5, 6, 65, 3, padding=1)
        yield padded("without_padding", 1, 4, 5, 6, 5, 3)
        yield padded("batch_0", 0, 4, 6, 7, 5, 3, padding=1)
        yield padded("batch_0_depthwise", 0, 4, 6, 7, 4, 3, padding=1, groups=4)
    yield conv("reflect_as_far_as_it_goes", 1, 3, 4, 5, 4, 3, padding=((3, 3), (4, 4)), mode="reflect")
    yield conv("reflect_two_pixels", 1, 3, 2, 2, 4, 3, padding=1, mode="reflect")
    yield conv("circular_as_far_as_it_goes", 1, 3, 3, 4, 5, 3, padding=((3, 3), (4, 4)), mode="circular")
    yield conv("circular_one_pixel", 1, 3, 1, 1, 4, 3, padding=1, mode="circular")
    yield conv("replicate_beyond_the_input", 1, 3, 3, 2, 5, 3, padding=((7, 9), (8, 5)), mode="replicate")
    yield conv("replicate_one_pixel", 1, 3, 1, 1, 4, 3, padding=((2, 1), (1, 3)), mode="replicate")
    yield conv("long_input_reduction_replicate_321", 1, 3, 1, 4, 4, 1, padding=((0, 0), (320, 2)), mode="replicate")
    yield conv("long_input_reduction_replicate_41x41", 1, 2, 2, 2, 3, 1, padding=40, mode="replicate")


def transposed():
    def turned(name, *sizes, **options):
        return conv(f"transposed_{name}", *sizes, transposed=True, **options)

    for r, s in ((1, 1), (2, 2), (3, 3), (4, 2), (3, 5)):
        for stride in (1, 2, 3):
            yield turned(f"kernel_{r}x{s}_s{stride}", 2, 6, 5, 6, 9, (r, s), stride=stride, bias=stride != 2)
    for c, k in ((1, 17), (33, 65), (65, 33), (130, 3), (64, 64)):
        yield turned(f"channels_{c}_to_{k}", 1, c, 4, 5, k, 3, stride=2, padding=1)
    yield turned("upsampling_by_2", 2, 16, 5, 5, 8, 4, stride=2, padding=1)
    yield turned("upsampling_by_2_output_padding", 2, 8, 5, 5, 6, 3, stride=2, padding=1, output_padding=1)
    yield turned("output_padding_2x1_stride_3x2", 1, 5, 4, 6, 7, 3, (3, 2), 1, output_padding=(2, 1))
    yield turned("output_padding_no_bias", 1, 5, 4, 6, 7, 2, 3, bias=False, output_padding=(0, 2))
    yield turned("output_padding_beyond_stride_1", 1, 4, 5, 6, 5, 3, 1, 1, 3, output_padding=2)
    yield turned("output_padding_of_one_stride", 2, 4, 5, 4, 6, 2, 2, 0, (3, 4), output_padding=(2, 3))
    yield turned("output_padding_beyond_stride_depthwise", 1, 6, 4, 5, 6, 3, 2, 2, 5, groups=6, output_padding=4)
    yield turned("padding_all_different", 1, 4, 6, 7, 5, 4, 2, ((0, 1), (2, 3)))
    yield turned("padding_larger_than_kernel", 1, 4, 7, 8, 5, 3, padding=((3, 4), (4, 5)))
    yield turned("padding_larger_than_kernel_stride_2", 1, 4, 7, 8, 5, 3, 2, 5, output_padding=1)
    yield turned("dilation_2", 1, 5, 5, 6, 6, 3, padding=1, dilation=2)
    yield turned("dilation_2x3_stride_3x2", 2, 5, 4, 5, 6, (2, 3), (3, 2), 1, (2, 3))
    yield turned("stride_larger_than_kernel", 2, 5, 4, 3, 6, 2, stride=5)
    yield turned("stride_larger_than_kernel_depthwise", 2, 5, 4, 3, 5, 2, stride=4, groups=5)
    yield turned("groups_2", 2, 6, 5, 5, 8, 3, 2, 1, groups=2, output_padding=1)
    yield turned("groups_4_to_fewer", 1, 16, 4, 5, 8, 3, groups=4, bias=False)
    yield turned("depthwise", 2, 9, 6, 7, 9, 3, padding=1, groups=9)
    yield turned("depthwise_stride_2_output_padding", 1, 10, 6, 7, 10, 3, 2, 1, groups=10, output_padding=1)
    yield turned("depthwise_from_3_channels_each", 1, 15, 5, 6, 5, 3, 2, groups=5)
    yield turned("depthwise_to_2_channels_each", 1, 5, 5, 6, 10, 3, 2, groups=5)
    yield turned("to_one_channel", 1, 12, 6, 6, 1, 5, 2, 2)
    yield turned("one_dimensional", 2, 6, 1, 15, 8, (1, 4), (1, 2), (0, 1))
    yield turned("one_dimensional_output_padding_dilated", 1, 6, 1, 15, 4, (1, 3), 1, (0, 2), (1, 2), output_padding=(0, 1))
    yield turned("one_dimensional_depthwise", 1, 7, 1, 20, 7, (1, 5), (1, 3), (0, 1), groups=7)
    yield turned("one_pixel_input", 2, 6, 1, 1, 5, 4)
    yield turned("one_pixel_output", 2, 6, 1, 1, 5, 3, padding=1)
    yield turned("one_pixel_to_one_pixel", 1, 1, 1, 1, 1, 1)
    yield turned("batch_0", 0, 4, 5, 6, 6, 3, 2, 1)
    yield turned("batch_0_depthwise_no_bias", 0, 4, 5, 6, 4, 3, 2, 1, groups=4, bias=False)
    yield turned("batch_17", 17, 3, 4, 4, 5, 3, 2, 1)
    yield conv("long_forward_reduction_4608_transposed", 1, 512, 5, 5, 6, 3, padding=1, transposed=True)
    yield conv("long_input_reduction_4608_transposed", 1, 6, 5, 5, 512, 3, stride=2, transposed=True)
    yield conv("long_weight_reduction_50176_transposed", 1, 2, 224, 224, 3, 2, stride=2, transposed=True)


# ------------------------------------------------------------------------------------------------ seeded sweep


class Dice:
    """Draws from random(), the only method whose sequence Python promises to keep between versions."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def chance(self, probability):
        return self.random() < probability

    def between(self, low, high):
        return low + int(self.random() * (high - low + 1))

    def size(self, low, high):
        """Log-uniform: small sizes as often as large ones."""
        return min(high, int(low * math.exp(self.random() * math.log((high + 1) / low))))

    def pick(self, *values):
        return values[int(self.random() * len(values))]


def random_case(dice, name):
    style = dice.random()
    if style < 0.2:  # depthwise
        count = dice.size(1, 130)
        c, k = count, count * dice.pick(1, 1, 1, 2, 3)
    elif style < 0.4:
        count = dice.between(2, 9)
        c, k = count * dice.size(1, 24), count * dice.size(1, 24)
    else:
        count = 1
        c, k = (dice.pick(*OFF_TILE_CHANNELS) if dice.chance(0.3) else dice.size(1, 140) for _ in "ck")
    r = dice.pick(1, 1, 2, 3, 3, 3, 4, 5, 6, 7)
    s = r if dice.chance(0.6) else dice.between(1, 7)
    stride = [dice.pick(1, 1, 1, 2, 2, 3)] * 2
    if dice.chance(0.25):
        stride[1] = dice.between(1, 3)
    dilation = [dice.pick(1, 1, 1, 2, 3)] * 2
    if dice.chance(0.2):
        dilation[1] = dice.between(1, 3)
    windows = [dilation[0] * (r - 1) + 1, dilation[1] * (s - 1) + 1]
    kind = dice.random()
    if kind < 0.3:
        padding = [[0, 0], [0, 0]]
    elif kind < 0.65:
        padding = [[window // 2, window // 2] for window in windows]
    else:
        padding = [[dice.between(0, window + 1), dice.between(0, window + 1)] for window in windows]
    h = 1 if dice.chance(0.08) else dice.size(1, 48)
    w = dice.size(1, 48)
    n = dice.pick(1, 1, 1, 2, 2, 3, 4, 5)
    return conv(name, n, c, h, w, k, (r, s), stride, padding, dilation, count, dice.chance(0.6))


def sweep():
    dice = Dice(20240229)
    for index in range(SWEEP):
        limit = dice.pick(2e5, 5e5, 1e6, 1e6, 2e6, 3e6, 1e7, 3e7)
        while True:
            case = random_case(dice, f"random_{index:04}")
            if output(case) is None or not limit / 50 <= flops(case) <= limit:
                continue
            p, q = output(case)
            if max(case["c"] * case["h"] * case["w"], case["k"] * p * q) * case["n"] <= 200_000:
                break
        yield case


def sweep_variants():
    """Padding modes and transposed convolutions, drawn apart so that they leave the sweep above as it is."""
    dice = Dice(19690720)
    for index in range(VARIANTS):
        turned = index % 2 == 1
        while True:
            case = random_case(dice, f"random_{'transposed' if turned else 'padded'}_{index // 2:02}")
            if turned:
                case["transposed"] = True
                most = [max(case["stride"][axis], case["dilation"][axis]) - 1 for axis in (0, 1)]
                extra = [dice.between(0, most[axis]) if dice.chance(0.7) else 0 for axis in (0, 1)]
                if extra != [0, 0]:
                    case["output_padding"] = extra
            else:
                case["padding_mode"] = dice.pick(*MODES)
                room = {"reflect": -1, "replicate": MAX_SIZE, "circular": 0}[case["padding_mode"]]
                if any(max(case["padding"][axis]) > size + room for axis, size in enumerate((case["h"], case["w"]))):
                    continue
                if not sum(map(sum, case["padding"])):
                    continue
            if output(case) is None or not 1e4 <= flops(case) <= 1e6:
                continue
            p, q = output(case)
            if max(case["c"] * case["h"] * case["w"], case["k"] * p * q) * case["n"] <= 20_000:
                break
        yield case


# ------------------------------------------------------------------------------------------------------- errors


def error(name, message, status="INVALID_ARGUMENT", in_channels=None, **changes):
    """A legal convolution spoilt in one way; `message` is a fragment of the error's text.

    `c` is the channels of the input, `in_channels` what the layer was made for.
    """
    fields = dict(n=1, c=4, h=9, w=9, k=6, kernel=3)
    fields.update(changes)
    case = conv(name, **fields)
    case["in_channels"] = case["c"] if in_channels is None else in_channels
    case["status"] = status
    case["message"] = message
    return case


def errors():
    legal = f"expected 1 to {MAX_SIZE}"
    yield error("in_channels_0", f"in_channels is 0, {legal}", c=0)
    yield error("in_channels_too_many", f"in_channels is {MAX_SIZE + 1}, {legal}", c=MAX_SIZE + 1)
    yield error("out_channels_0", f"out_channels is 0, {legal}", k=0)
    yield error("out_channels_too_many", f"out_channels is {2**62}, {legal}", k=2**62)
    yield error("groups_0", f"groups is 0, {legal}", groups=0)
    yield error("groups_too_many", f"groups is {2**40}, {legal}", groups=2**40)
    yield error("groups_do_not_divide_in_channels", "in_channels is 4, expected a multiple of groups = 3", groups=3)
    yield error("groups_do_not_divide_out_channels", "out_channels is 6, expected a multiple of groups = 4", groups=4)
    yield error("groups_more_than_channels", "in_channels is 4, expected a multiple of groups = 8", groups=8, k=8)
    for axis, name in ((0, "height"), (1, "width")):

        def along(value, other):
            return [value, other] if axis == 0 else [other, value]

        yield error(f"kernel_{name}_0", f"kernel[{axis}] is 0, {legal}", kernel=along(0, 3))
        yield error(f"kernel_{name}_too_large", f"kernel[{axis}] is {2**31}, {legal}", kernel=along(2**31, 3))
        yield error(f"stride_{name}_0", f"stride[{axis}] is 0, {legal}", stride=along(0, 1))
        yield error(f"stride_{name}_too_large", f"stride[{axis}] is {2**62}, {legal}", stride=along(2**62, 1))
        yield error(f"dilation_{name}_0", f"dilation[{axis}] is 0, {legal}", dilation=along(0, 1))
        yield error(f"dilation_{name}_too_large", f"dilation[{axis}] is {2**33}, {legal}", dilation=along(2**33, 1))
        yield error(
            f"dilated_kernel_{name}_too_large",
            f"kernel[{axis}] = 3 with dilation[{axis}] = {2**30} spans {2**31 + 1} elements, expected at most",
            dilation=along(2**30, 1),
        )
        for end, side in enumerate(("begin", "end")):
            padding = [[0, 0], [0, 0]]
            padding[axis][end] = 2**31
            yield error(
                f"padding_{side}_{name}_too_large",
                f"padding_{side}[{axis}] is {2**31}, expected 0 to {MAX_SIZE}",
                padding=padding,
            )
        yield error(
            f"kernel_larger_than_input_{name}",
            f"kernel spans 3 elements along axis {axis + 2}, more than the padded input's 2",
            **{"hw"[axis]: 2},
        )
        yield error(
            f"dilated_kernel_larger_than_padded_input_{name}",
            f"kernel spans 13 elements along axis {axis + 2}, more than the padded input's 11",
            padding=1, dilation=along(6, 1),
        )  # fmt: skip
        yield error(f"input_{name}_0", "is empty; only the batch may be 0", **{"hw"[axis]: 0})
        yield error(f"input_{name}_0_padded", "is empty; only the batch may be 0", padding=3, **{"hw"[axis]: 0})
        yield error(
            f"input_{name}_too_long",
            f"elements along axis {axis + 2} with padding, expected at most {2**30}",
            **{"hw"[axis]: 2**30 + 1},
        )
        yield error(
            f"padded_{name}_too_long",
            f"has {2**30 + 9} elements along axis {axis + 2} with padding, expected at most {2**30}",
            padding=along((2**29, 2**29), (0, 0)),
        )
        yield error(
            f"reflect_padding_{name}_too_large",
            f"padding_begin[{axis}] is 9, expected 0 to 8 in mode Reflect for 9 elements along axis {axis + 2}",
            padding=along((9, 0), (0, 0)), mode="reflect",
        )  # fmt: skip
        yield error(
            f"circular_padding_{name}_too_large",
            f"padding_end[{axis}] is 10, expected 0 to 9 in mode Circular for 9 elements along axis {axis + 2}",
            padding=along((9, 10), (9, 9)), mode="circular",
        )  # fmt: skip
        yield error(
            f"replicated_{name}_too_long",
            f"has {2**30 + 9} elements along axis {axis + 2} with padding, expected at most {2**30}",
            padding=along((2**29, 2**29), (0, 0)), mode="replicate",
        )  # fmt: skip
        yield error(
            f"output_padding_{name}_of_a_direct_convolution",
            f"output_padding[{axis}] is 1, expected 0: the convolution is not transposed",
            stride=2, output_padding=along(1, 0),
        )  # fmt: skip
        yield error(
            f"output_padding_{name}_too_large",
            f"output_padding[{axis}] is 3, expected 0 to 2: less than stride[{axis}] = 2 or dilation[{axis}] = 3",
            stride=2, dilation=3, transposed=True, output_padding=along(3, 0),
        )  # fmt: skip
        yield error(
            f"transposed_without_output_{name}",
            f"the calculated output has 0 elements along axis {axis + 2} for an input of shape [1, 4, 9, 9], expected at least 1",
            transposed=True, padding=along((5, 6), (0, 0)),
        )  # fmt: skip
        yield error(
            f"transposed_with_negative_output_{name}",
            f"the calculated output has -13 elements along axis {axis + 2}",
            transposed=True, padding=along(12, 0),
        )  # fmt: skip
        yield error(
            f"transposed_output_{name}_too_long",
            f"elements along axis {axis + 2} with padding, expected at most {2**30}",
            transposed=True, stride=along(2**28, 1),
        )  # fmt: skip
        yield error(
            f"transposed_input_{name}_0", "is empty; only the batch may be 0", transposed=True, padding=3, **{"hw"[axis]: 0}
        )
    for mode in MODES:
        yield error(
            f"transposed_{mode}",
            f"padding_mode is {mode.capitalize()}, expected Zeros: the convolution is transposed",
            transposed=True, mode=mode,
        )  # fmt: skip
    yield error("transposed_channels", "[1, 6, 9, 9] has 6 channels, expected in_channels = 4", c=6, in_channels=4, transposed=True)
    yield error("transposed_output_bytes_overflow", "output of shape", n=2**29, c=1, k=2**30, transposed=True)
    yield error("input_channels_too_few", "[1, 3, 9, 9] has 3 channels, expected in_channels = 4", c=3, in_channels=4)
    yield error("input_channels_too_many", "[2, 5, 9, 9] has 5 channels, expected in_channels = 4", n=2, c=5, in_channels=4)
    yield error("input_channels_0", "[1, 0, 9, 9] has 0 channels, expected in_channels = 4", c=0, in_channels=4)
    yield error("input_channels_of_one_group", "has 2 channels, expected in_channels = 4", c=2, in_channels=4, groups=2)
    yield error("batch_0_with_wrong_channels", "[0, 5, 9, 9] has 5 channels", n=0, c=5, in_channels=4)
    yield error("batch_0_with_empty_height", "[0, 4, 0, 9] is empty; only the batch may be 0", n=0, h=0)
    yield error("weight_bytes_overflow", "overflows 64-bit byte sizes", c=2**30, k=2**30, kernel=1024)
    yield error("input_bytes_overflow", f"input of shape [{2**60}, 4, 9, 9] overflows 64-bit byte sizes", n=2**60)
    yield error(
        "input_bytes_overflow_at_batch_0",
        "overflows 64-bit byte sizes",
        n=0, h=2**30, w=2**30, c=2**20, k=1, kernel=1,
    )  # fmt: skip
    yield error("output_bytes_overflow", "output of shape", n=2**29, c=1, k=2**30, h=9, w=9, kernel=3)


def build():
    parts = (
        channels, kernels, strides, paddings, dilations, groups, batches, one_dimensional, reductions, extents, networks,
        padding_modes, transposed, sweep, sweep_variants,
    )  # fmt: skip
    cases = [case for part in parts for case in part()]
    wrong = list(errors())
    for table in (cases, wrong):
        names = [case["name"] for case in table]
        doubles = {name for name in names if names.count(name) > 1}
        assert not doubles, f"names must be unique: {sorted(doubles)}"
    for case in cases:
        assert output(case), f"{case['name']}: it has no output"
    return cases, wrong


def render(cases, wrong):
    def lines(table):
        return ",\n".join(json.dumps(case) for case in table)

    note = "Written by tests/generate_cases.py; edit that."
    return f'{{\n"note": {json.dumps(note)},\n"cases": [\n{lines(cases)}\n],\n"errors": [\n{lines(wrong)}\n]\n}}\n'


def main():
    cases, wrong = build()
    text = render(cases, wrong)
    if sys.argv[1:] == ["--check"]:
        if not TABLE.exists() or TABLE.read_text(encoding="utf-8") != text:
            sys.exit(f"{TABLE.name} is stale; run: python3 tests/generate_cases.py")
        return
    if sys.argv[1:]:
        sys.exit(__doc__)
    TABLE.write_text(text, encoding="utf-8", newline="\n")
    costs = sorted(3 * flops(case) / 1e6 for case in cases)
    print(
        f"{len(cases)} cases ({SWEEP} of the sweep), {len(wrong)} errors; MFLOP of all passes: "
        f"median {costs[len(costs) // 2]:.2f}, largest {costs[-1]:.0f}, sum {sum(costs):.0f}"
    )


if __name__ == "__main__":
    main()
