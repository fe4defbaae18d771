// How an implicit GEMM fills the shared tiles, and stores. Blocks run through all taps of BLOCK source channels before
// the next channels: what neighbouring taps read is then still in the first cache. Where there are too few channels to
// fill such blocks, they run through a list of all steps instead: implicit_gemm_steps.glsl.
//
// There are no branches around the loads: what does not exist is read somewhere else in the tensor.

#include "lib/vectors.glsl"

// Room for the list of steps, in whole blocks; 1: there is none.
layout(constant_id = 1) const uint LISTED_STEPS = 1;
layout(constant_id = 3) const bool PACKED = true; // the weight comes as pack-weights.glsl has it, not raw

const uint A_LOADS = BLOCK * TILE_M / 4 / THREADS;
const uint A_STEP = THREADS / (TILE_M / 4); // rows from a load to the next
const uint B_LOADS = BLOCK * TILE_N / THREADS;
const uint PIXELS = TILE_N < THREADS ? 1 : TILE_N / THREADS; // this thread's columns
const uint B_STEP = TILE_N < THREADS ? THREADS / TILE_N : 1;

// What was fetched, and whether it exists: zeros replace it when it is placed, so that nothing waits for it before.
vec4 a_next[A_LOADS];
float b_next[B_LOADS];
bool a_exists[A_LOADS], b_exists[B_LOADS];

uint a_row() { return gl_LocalInvocationIndex / (TILE_M / 4); }
uint a_column() { return gl_LocalInvocationIndex % (TILE_M / 4); }
uint b_row(uint i) { return gl_LocalInvocationIndex / TILE_N + i / PIXELS * B_STEP; }
uint b_column(uint j) { return (gl_LocalInvocationIndex + j * THREADS) % TILE_N; }

bool pixel_exists[PIXELS];
ivec2 pixel_source[PIXELS]; // what it reads through the first tap, and that element in the group's first channel
uint pixel_at[PIXELS];
uint a_vector_at; // this thread's vector of a packed row
uint next_r, next_s, next_channel; // of the block to be fetched

// Of joint phases: the kernel elements, through the first tap, of the phase whose weights this thread fetches and of the
// phase that it computes (it has THREAD_M = 4 rows); and whether the latter reads what is fetched and what is placed.
ivec2 fetched_element, computed_element;
bool reads_fetched, reads_placed;

ivec2 first_element(uint phase) {
    return ivec2(phase / pc.stride_w + pc.padding_h, phase % pc.stride_w + pc.padding_w)
        - ivec2(h_axis.source, w_axis.source) * ivec2(pc.stride_h, pc.stride_w);
}

bool in_kernel(ivec2 element) { return uint(element.x) < pc.R && uint(element.y) < pc.S; }

// Where the weights of the phase's tap (r, s) are, for source channel 0 of the group and, if they are raw, row 0.
uint weights_at(uint r, uint s) {
    return PACKED ? weight_row(r, s) : group * m_count * reduced_channels * pc.R * pc.S + kernel_element(r, s);
}

// Those of a source channel further on.
uint weights_at_channel(uint first, uint channel) {
#ifdef BACKWARD_INPUT
    return first + channel * (PACKED ? 1 : m_count * pc.R * pc.S);
#else
    return first + channel * (PACKED ? 1 : pc.R * pc.S);
#endif
}

// This thread's four rows of them.
vec4 read_weights(uint at) {
    if (PACKED) {
        return WEIGHT_VECTOR(at * m_vectors + a_vector_at);
    }
#ifdef BACKWARD_INPUT
    uint row_step = pc.R * pc.S;
#else
    uint row_step = reduced_channels * pc.R * pc.S;
#endif
    vec4 weights;
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        weights[i] = WEIGHT(at + min(4 * a_vector_at + i, m_count - 1) * row_step);
    }
    return weights;
}

#include "lib/implicit_gemm_steps.glsl"

// Every weight of a block exists, and a pixel hits either all of its steps or none.
const bool WHOLE_TAPS = WHOLE_BLOCKS && !BY_STEPS;

uint first_channel_block(uint split) { return split * channel_blocks / SPLITS; }

void begin_fetching() {
    next_r = 0;
    next_s = 0;
    next_channel = SPLIT ? first_channel_block(split) * BLOCK : 0;
    next_step = 0;
    a_vector_at = min(first_m / 4 + a_column(), m_vectors - 1); // rows beyond m_count are never written
    if (JOINT_PHASES) {
        a_vector_at = (first_m / 4 + a_column()) % m_vectors;
        fetched_element = first_element((first_m / 4 + a_column()) / m_vectors);
        computed_element = first_element((first_m / 4 + a_vector(0)) / m_vectors);
    }
    [[unroll]] for (uint j = 0; j < PIXELS; ++j) {
        Pixel pixel = pixel_of(first_n + b_column(j));
        pixel_exists[j] = pixel.exists;
        pixel_source[j] = first_source(pixel);
        uint plane = pixel.image * SOURCE_CHANNELS + group * reduced_channels;
        pixel_at[j] = SOURCE_BASE + plane * source_plane + pixel_source[j].x * SOURCE_WIDTH + pixel_source[j].y;
    }
    if (BY_STEPS) {
        list_steps();
    }
}

uint blocks() {
    if (BY_STEPS) {
        return (steps_in_all() + BLOCK - 1) / BLOCK;
    }
    uint of_channels = SPLIT ? first_channel_block(split + 1) - first_channel_block(split) : channel_blocks;
    return h_axis.taps * w_axis.taps * of_channels;
}

// The channel itself, or the last one of the group where it does not exist.
uint existing(uint channel) { return WHOLE_BLOCKS ? channel : min(channel, reduced_channels - 1); }
bool exists(uint channel) { return WHOLE_BLOCKS || channel < reduced_channels; }

void fetch_tap() {
    ivec2 element = ivec2(next_r, next_s);
    if (JOINT_PHASES) {
        ivec2 step = element * ivec2(pc.stride_h, pc.stride_w);
        reads_fetched = in_kernel(computed_element + step);
        element = in_kernel(fetched_element + step) ? fetched_element + step : ivec2(0);
    }
    uint first = weights_at(element.x, element.y);
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint channel = next_channel + a_row() + i * A_STEP;
        a_next[i] = read_weights(weights_at_channel(first, existing(channel)));
        a_exists[i] = exists(channel);
    }
    ivec2 reach = ivec2(next_r, next_s) * ivec2(h_axis.reach, w_axis.reach);
    [[unroll]] for (uint j = 0; j < PIXELS; ++j) {
        bool hit = pixel_exists[j] && in_source(pixel_source[j] + reach);
        uint first_channel = hit ? pixel_at[j] + reach.x * SOURCE_WIDTH + reach.y : SOURCE_BASE;
        uint at = first_channel + (next_channel + b_row(j)) * source_plane;
        [[unroll]] for (uint i = j; i < B_LOADS; i += PIXELS) {
            uint channel = next_channel + b_row(i);
            b_next[i] = SOURCE_AT(WHOLE_BLOCKS ? at : first_channel + existing(channel) * source_plane);
            b_exists[i] = hit && exists(channel);
            at += B_STEP * source_plane;
        }
    }
    ++next_s;
    if (next_s == w_axis.taps) {
        next_s = 0;
        ++next_r;
    }
    if (next_r == h_axis.taps) {
        next_r = 0;
        next_channel += BLOCK;
    }
}

void fetch() {
    if (BY_STEPS) {
        fetch_steps();
    } else {
        fetch_tap();
    }
}

bool takes_block() { return !JOINT_PHASES || reads_placed; }

void place(uint first_row) {
    reads_placed = reads_fetched;
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint row = first_row + a_row() + i * A_STEP;
        a_tile[row * A_ROW + a_column()] = WHOLE_TAPS || a_exists[i] ? a_next[i] : vec4(0);
    }
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint n = b_column(i % PIXELS);
        b_tile[(first_row + b_row(i)) * B_ROW + n / 4][n % 4] = b_exists[WHOLE_TAPS ? i % PIXELS : i] ? b_next[i] : 0;
    }
}

// Every four neighbouring columns are four neighbouring elements of the result.
void store_vectors() {
    uint plane = RESULT_HEIGHT * RESULT_WIDTH;
    [[unroll]] for (uint j = 0; j < THREAD_N; j += 4) {
        Pixel pixel = pixel_of(first_n + result_n(j));
        uint at = result_at(pixel, first_m);
        [[unroll]] for (uint row = 0; row < THREAD_M; ++row) {
            uint m = result_m(row);
            uint i = row * THREAD_N + j;
            if (pixel.exists && first_m + m < m_count) {
                vec4 values = vec4(totals[i], totals[i + 1], totals[i + 2], totals[i + 3]);
                store_result_vector((at + m * plane) / 4, group * m_count + first_m + m, values);
            }
        }
    }
}

void store_elements() {
    uint plane = RESULT_HEIGHT * RESULT_WIDTH;
    Pixel pixel = pixel_of(first_n + store_column());
    uint at = result_at(pixel, 0);
    for (uint first = 0; first < TILE_M; first += STAGED_ROWS) {
        stage(first);
        for (uint row = store_row(); row < STAGED_ROWS; row += STORE_STEP) {
            uint m = first_m + first + row;
            if (pixel.exists && m < m_count) {
                store_result(at + m * plane, group * m_count + m, staged(row, store_column()));
            }
        }
    }
}

// Rows are [phase][channel], whole vectors of channels.
void store_phases() {
    Pixel first_of_cell = pixel_of(first_n + store_column());
    for (uint first = 0; first < TILE_M; first += STAGED_ROWS) {
        stage(first);
        for (uint i = store_row(); i < STAGED_ROWS; i += STORE_STEP) {
            uint row = first_m + first + i;
            uint m = row % (4 * m_vectors);
            uint phase = row / (4 * m_vectors);
            Pixel pixel = first_of_cell;
            pixel.at += uvec2(phase / pc.stride_w, phase % pc.stride_w);
            if (pixel.exists && row < rows && m < m_count && pixel.at.x < RESULT_HEIGHT && pixel.at.y < RESULT_WIDTH) {
                store_result(result_at(pixel, m), group * m_count + m, staged(i, store_column()));
            }
        }
    }
}

void store() {
    if (JOINT_PHASES) {
        store_phases();
    } else if ((VECTORS & RESULT_VECTORS) != 0) {
        store_vectors();
    } else {
        store_elements();
    }
}
