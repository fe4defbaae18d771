// Implicit GEMM over taps: m = channels of the result, n = its pixels over the whole batch, reduction =
// taps (outer) × channels of the source (inner). A result pixel is decoded once a thread; inside a block
// the tap is uniform, so an address is pixel + tap offset + channel plane, without any division.
//
// The weight is packed as [group][tap][source channel][result channel], with the innermost axis padded to whole
// vectors of four; see pack-weights.glsl. With ROWS_IN_LANES the source is packed too, see pack-channels.glsl.

#include "lib/taps.glsl"
#include "lib/tile.glsl"

// Result pixels whose source this thread fetches.
const uint PIXELS = TILE_N < THREADS ? 1 : TILE_N / THREADS;
bool pixel_exists[PIXELS];
uint pixel_plane[PIXELS]; // element (or vector) of the source's first channel of this group in the pixel's image
ivec2 pixel_at[PIXELS];

uint group, first_m, first_n, m_count, m_vectors, reduced_channels, channel_blocks, source_plane;

uint reduced_vectors() { return (reduced_channels + 3) / 4; }

void fetch(uint block) {
    uint tap = block / channel_blocks;
    uint first_channel = block % channel_blocks * BLOCK;
    uint first_row = (group * pc.R * pc.S + tap) * reduced_channels + first_channel;
#ifdef ROWS_IN_LANES
    [[unroll]] for (uint i = 0; i < BLOCK * VECTORS; ++i) {
        uint vector = first_m / 4 + a_vector(i);
        a_next[i] = vec4(0);
        if (first_channel + a_step(i) < reduced_channels && vector < m_vectors) {
            a_next[i] = WEIGHT_VECTOR((first_row + a_step(i)) * m_vectors + vector);
        }
    }
#else
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint m = first_m + a_m(i);
        a_next[i] = 0;
        if (first_channel + a_row(i) < reduced_channels && m < m_count) {
            a_next[i] = WEIGHT((first_row + a_row(i)) * m_vectors * 4 + m);
        }
    }
#endif
    ivec2 tap_at = ivec2(tap / pc.S, tap % pc.S);
    bool hit[PIXELS];
    uint source_at[PIXELS];
    [[unroll]] for (uint j = 0; j < PIXELS; ++j) {
        ivec2 source;
        hit[j] = source_pixel(pixel_at[j], tap_at, source) && pixel_exists[j];
        source_at[j] = pixel_plane[j] + uint(source.x) * SOURCE_WIDTH + uint(source.y);
    }
#ifdef ROWS_IN_LANES
    vec4 channels[BLOCK]; // vector by vector: four steps of each column
    [[unroll]] for (uint i = 0; i < BLOCK; ++i) {
        uint vector = first_channel / 4 + i / THREAD_N;
        channels[i] = vec4(0);
        if (hit[i % THREAD_N] && vector < reduced_vectors()) {
            channels[i] = SOURCE_VECTOR(source_at[i % THREAD_N] + vector * source_plane);
        }
    }
    [[unroll]] for (uint step = 0; step < BLOCK; ++step) {
        uint i = step / 4 * THREAD_N;
        uint at = step % 4;
        b_next[step] = vec4(channels[i][at], channels[i + 1][at], channels[i + 2][at], channels[i + 3][at]);
    }
#else
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint channel = first_channel + b_row(i);
        b_next[i] = 0;
        if (hit[i % PIXELS] && channel < reduced_channels) {
            b_next[i] = SOURCE(source_at[i % PIXELS] + channel * source_plane);
        }
    }
#endif
}

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
    uint result_plane = RESULT_HEIGHT * RESULT_WIDTH;
    uint pixels = pc.N * result_plane;

    // Tiles of the same pixels are neighbours, so that their source is read from cache.
    uint tiles_m = (m_count + TILE_M - 1) / TILE_M;
    uint tiles_n = (pixels + TILE_N - 1) / TILE_N;
    first_m = tile % tiles_m * TILE_M;
    first_n = tile / tiles_m % tiles_n * TILE_N;
    group = tile / tiles_m / tiles_n;

    [[unroll]] for (uint j = 0; j < PIXELS; ++j) {
        uint pixel = first_n + b_n(j);
        pixel_exists[j] = pixel < pixels;
        uint in_plane = pixel % result_plane;
        pixel_at[j] = ivec2(in_plane / RESULT_WIDTH, in_plane % RESULT_WIDTH);
#ifdef ROWS_IN_LANES
        pixel_plane[j] = (pixel / result_plane * pc.groups + group) * reduced_vectors() * source_plane;
#else
        pixel_plane[j] = (pixel / result_plane * SOURCE_CHANNELS + group * reduced_channels) * source_plane;
#endif
    }

    multiply(pc.R * pc.S * channel_blocks);

    bool exists[THREAD_N];
    uint result_at[THREAD_N];
    [[unroll]] for (uint column = 0; column < THREAD_N; ++column) {
        uint pixel = first_n + result_n(column);
        uint plane = pixel / result_plane * RESULT_CHANNELS + group * m_count;
        exists[column] = pixel < pixels;
        result_at[column] = plane * result_plane + pixel % result_plane;
    }
    [[unroll]] for (uint i = 0; i < THREAD_M * THREAD_N; ++i) {
        uint row = i / THREAD_N;
        uint column = i % THREAD_N;
        uint m = first_m + result_m(row);
        if (exists[column] && m < m_count) {
            store_result(result_at[column] + m * result_plane, group * m_count + m, totals[i]);
        }
    }
}
