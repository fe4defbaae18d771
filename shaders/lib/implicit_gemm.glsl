// Implicit GEMM over taps: m = channels of the result, n = its pixels over the whole batch, reduction =
// taps × channels of the source. Inside a block the tap is uniform, and a result pixel is decoded once a thread, so an
// address is pixel + tap + channel plane, without any division.
//
// The weight is packed as [group][tap][source channel][result channel], with the innermost axis padded to whole
// vectors of four, see pack-weights.glsl; or it comes raw, where packing would not pay. With ROWS_IN_LANES the source is
// packed too, see pack-channels.glsl.

#include "lib/phases.glsl"
#include "lib/tile.glsl"

// Blocks are whole: every source channel of a block exists.
layout(constant_id = 0) const bool WHOLE_BLOCKS = false;
// Few tiles: each sums only a part of the source's channels, and reduce-splits.glsl adds the parts. Only for blocks of one
// tap through shared memory.
layout(constant_id = 4) const bool SPLIT = false;

#define SPLITS (SPLIT ? pc.flags / SPLITS_UNIT : 1)

Axis h_axis, w_axis;
uint group, first_m, first_n, m_count, m_vectors, rows, reduced_channels, channel_blocks, source_plane, split;

uint cells_h() { return (RESULT_HEIGHT + h_axis.result_step - 1) / h_axis.result_step; }
uint cells_w() { return (RESULT_WIDTH + w_axis.result_step - 1) / w_axis.result_step; }

// The n-th result pixel of the phase.
struct Pixel {
    uint image;
    uvec2 cell;
    uvec2 at; // row and column in the result
    bool exists;
};

Pixel pixel_of(uint n) {
    uint image_cells = cells_h() * cells_w();
    uvec2 cell = uvec2(n % image_cells / cells_w(), n % cells_w());
    uvec2 at = cell * uvec2(h_axis.result_step, w_axis.result_step) + uvec2(h_axis.result, w_axis.result);
    bool exists = n / image_cells < pc.N && at.x < RESULT_HEIGHT && at.y < RESULT_WIDTH;
    return Pixel(n / image_cells, cell, at, exists);
}

// What the pixel reads through the first tap.
ivec2 first_source(Pixel pixel) {
    return ivec2(pixel.cell) * ivec2(h_axis.source_step, w_axis.source_step) + ivec2(h_axis.source, w_axis.source);
}

bool in_source(ivec2 at) { return uint(at.x) < SOURCE_HEIGHT && uint(at.y) < SOURCE_WIDTH; }

// The kernel element of the phase's tap (r, s).
uint kernel_element(uint r, uint s) {
    return (h_axis.tap + r * h_axis.tap_step) * pc.S + w_axis.tap + s * w_axis.tap_step;
}

// The packed weight's row of that tap and the group's source channel 0.
uint weight_row(uint r, uint s) { return (group * pc.R * pc.S + kernel_element(r, s)) * reduced_channels; }

// The element of the result at the pixel and the group's channel.
uint result_at(Pixel pixel, uint m) {
    uint channel = pixel.image * RESULT_CHANNELS + group * m_count + m;
    if (SPLIT) {
        channel += split * pc.N * RESULT_CHANNELS;
    }
    return (channel * RESULT_HEIGHT + pixel.at.x) * RESULT_WIDTH + pixel.at.y;
}

#ifdef OWN_COLUMNS
#include "lib/implicit_gemm_own_columns.glsl"
#else
#include "lib/implicit_gemm_shared.glsl"
#endif

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    m_count = RESULT_CHANNELS / pc.groups;
    m_vectors = (m_count + 3) / 4;
    reduced_channels = SOURCE_CHANNELS / pc.groups;
    channel_blocks = (reduced_channels + BLOCK - 1) / BLOCK;
    source_plane = SOURCE_HEIGHT * SOURCE_WIDTH;

    // Tiles of the same pixels are neighbours, so that their source is read from cache.
    rows = JOINT_PHASES ? pc.stride_h * pc.stride_w * m_vectors * 4 : m_count;
    uint tiles_m = (rows + TILE_M - 1) / TILE_M;
    uvec2 apart = JOINT_PHASES ? uvec2(1) : phases();
    uint phase = tile / tiles_m % (apart.x * apart.y);
#ifdef BACKWARD_INPUT
    if (JOINT_PHASES) {
        h_axis = joint_axis(pc.stride_h, pc.padding_h, pc.R);
        w_axis = joint_axis(pc.stride_w, pc.padding_w, pc.S);
    } else
#endif
    {
        h_axis = axis_h(phase / apart.y);
        w_axis = axis_w(phase % apart.y);
    }
    uint tiles_n = (pc.N * cells_h() * cells_w() + TILE_N - 1) / TILE_N;
    uint block_of_n = tile / tiles_m / (apart.x * apart.y);
    first_m = tile % tiles_m * TILE_M;
    first_n = block_of_n % tiles_n * TILE_N;
    group = block_of_n / tiles_n;
    if (SPLIT) {
        split = group / pc.groups;
        group %= pc.groups;
    }

    begin_fetching();
    multiply(blocks());
    store();
}
