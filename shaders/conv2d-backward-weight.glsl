// dweight (and dbias), as a GEMM: m = output channels, n = input channels × taps, reduction = output pixels
// over the whole batch. The reduction is long and the result small, so it is split: each split writes its
// own slice, and reduce-splits.glsl adds the slices in a fixed order. The bias's gradient is one more
// column of B, made of ones.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define WEIGHT_ACCESS
#define BIAS_ACCESS
#define OUTPUT_ACCESS readonly
#include "lib/problem.glsl"

#define SPLIT_PIXELS pc.extra_0 // output pixels that one split sums
#define FIRST_SPLIT pc.extra_1  // slice that the first split of this dispatch writes

#define REDUCTION_CONTIGUOUS
#include "lib/tile.glsl"

// What each column of the tile reads: the element of its channel's plane, and its tap's reach.
const uint PLANE_NONE = 0xFFFFFFFFu; // beyond the last column
const uint PLANE_ONES = 0xFFFFFFFEu; // the bias's gradient
shared uint column_plane[TILE_N];
shared ivec2 column_reach[TILE_N];

uint group, first_m, m_count, first_pixel, end_pixel, input_plane, output_plane;

void fetch(uint block) {
    // The same row of every load: THREADS is a multiple of BLOCK.
    uint pixel = first_pixel + block * BLOCK + a_row(0);
    bool exists = pixel < end_pixel;
    uint image = pixel / output_plane;
    uint in_plane = pixel % output_plane;
    uint output_at = (image * pc.K + group * m_count) * output_plane + in_plane;
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint m = first_m + a_m(i);
        a_next[i] = 0;
        if (exists && m < m_count) {
            a_next[i] = OUTPUT(output_at + m * output_plane);
        }
    }
    ivec2 corner = ivec2(in_plane / pc.Q * pc.stride_h, in_plane % pc.Q * pc.stride_w);
    uint image_at = image * pc.C * input_plane;
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint n = b_n(i);
        uint plane = column_plane[n];
        ivec2 source = corner + column_reach[n];
        b_next[i] = 0;
        if (exists) {
            if (plane < PLANE_ONES) {
                if (uint(source.x) < pc.H && uint(source.y) < pc.W) {
                    b_next[i] = INPUT(image_at + plane + uint(source.x) * pc.W + uint(source.y));
                }
            } else if (plane == PLANE_ONES) {
                b_next[i] = 1;
            }
        }
    }
}

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    m_count = pc.K / pc.groups;
    input_plane = pc.H * pc.W;
    output_plane = pc.P * pc.Q;
    uint group_channels = pc.C / pc.groups;
    uint taps = pc.R * pc.S;
    bool skip_weight = (pc.flags & FLAG_SKIP_WEIGHT) != 0;
    uint weights = skip_weight ? 0 : group_channels * taps;
    uint n_count = weights + pc.has_bias;
    uint pixels = pc.N * output_plane;

    uint tiles_m = (m_count + TILE_M - 1) / TILE_M;
    uint tiles_n = (n_count + TILE_N - 1) / TILE_N;
    first_m = tile % tiles_m * TILE_M;
    uint first_n = tile / tiles_m % tiles_n * TILE_N;
    group = tile / tiles_m / tiles_n % pc.groups;
    uint split = tile / tiles_m / tiles_n / pc.groups;
    first_pixel = split * SPLIT_PIXELS;
    end_pixel = min(first_pixel + SPLIT_PIXELS, pixels);

    for (uint n = gl_LocalInvocationIndex; n < TILE_N; n += THREADS) {
        uint column = first_n + n;
        uint tap = column % taps;
        column_plane[n] = column < weights ? (group * group_channels + column / taps) * input_plane
            : column < n_count ? PLANE_ONES : PLANE_NONE;
        column_reach[n] = ivec2(tap / pc.S * pc.dilation_h, tap % pc.S * pc.dilation_w)
            - ivec2(pc.padding_h, pc.padding_w);
    }
    barrier();

    multiply((end_pixel - first_pixel + BLOCK - 1) / BLOCK);

    uint slice = FIRST_SPLIT + split;
    [[unroll]] for (uint i = 0; i < THREAD_M * THREAD_N; ++i) {
        uint row = i / THREAD_N;
        uint column = i % THREAD_N;
        uint m = first_m + result_m(row);
        uint n = first_n + result_n(column);
        uint channel = slice * pc.K + group * m_count + m;
        if (m < m_count && n < weights) {
            WEIGHT(channel * weights + n) = result(row, column);
        } else if (m < m_count && n < n_count) {
            BIAS(channel) = result(row, column);
        }
    }
}
