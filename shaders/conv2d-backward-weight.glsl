// dweight (and dbias), as a GEMM: m = output channels, n = input channels × taps, reduction = output pixels
// over the whole batch. The reduction is long and the result small, so it is split: each split writes its
// own slice, and reduce-splits.glsl adds the slices in a fixed order. The bias's gradient is one more
// column of B, made of ones.
//
// With ROWS_IN_LANES both tensors come packed (pack-channels.glsl), so a thread's columns are four channels of one tap:
// n runs over [tap][channels / 4][4], and the bias's gradient is the first of four columns behind them.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define INPUT_VECTORS readonly
#define WEIGHT_ACCESS
#define BIAS_ACCESS
#define OUTPUT_ACCESS readonly
#define OUTPUT_VECTORS readonly
#include "lib/problem.glsl"

#define SPLIT_PIXELS pc.extra_0 // output pixels that one split sums
#define FIRST_SPLIT pc.extra_1  // slice that the first split of this dispatch writes

#define REDUCTION_CONTIGUOUS
#include "lib/tile.glsl"

#ifndef OWN_COLUMNS
// Neighbouring threads load neighbouring pixels, so they store down a column of the shared tiles.
const uint A_LOADS = BLOCK * TILE_M / THREADS;
const uint B_LOADS = BLOCK * TILE_N / THREADS;
float a_next[A_LOADS];
float b_next[B_LOADS];
uint step_of() { return gl_LocalInvocationIndex % BLOCK; }
uint column_of(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / BLOCK; }

bool takes_block() { return true; }

void place(uint first_row) {
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint m = column_of(i);
        a_tile[(first_row + step_of()) * A_ROW + m / 4][m % 4] = a_next[i];
    }
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint n = column_of(i);
        b_tile[(first_row + step_of()) * B_ROW + n / 4][n % 4] = b_next[i];
    }
}
#endif

// What each column of the tile (each four of a thread, where channels are packed) reads: the element (or vector) of its
// channel's plane, and its tap's reach.
const uint PLANE_NONE = 0xFFFFFFFFu; // beyond the last column
const uint PLANE_ONES = 0xFFFFFFFEu; // the bias's gradient
#if defined(ROWS_IN_LANES)
uint own_plane;
ivec2 own_reach;
#elif defined(OWN_COLUMNS)
uint own_plane[THREAD_N];
ivec2 own_reach[THREAD_N];
#else
shared uint column_plane[TILE_N];
shared ivec2 column_reach[TILE_N];
#endif

uint group, first_m, first_n, m_count, weight_columns, n_count, first_pixel, end_pixel, input_plane, output_plane;
uint next_pixel; // to be fetched

uint channels() { return pc.C / pc.groups; }

uint vectors(uint count) { return (count + 3) / 4; }

#ifdef ROWS_IN_LANES
uint tap_of(uint n) { return n / 4 / vectors(channels()); }
uint channel_of(uint n) { return n / 4 % vectors(channels()) * 4 + n % 4; }
bool is_weight(uint n) { return n < weight_columns && channel_of(n) < channels(); }
uint weight_index(uint k, uint n) { return (k * channels() + channel_of(n)) * pc.R * pc.S + tap_of(n); }
#else
uint tap_of(uint n) { return n % (pc.R * pc.S); }
uint channel_of(uint n) { return n / (pc.R * pc.S); }
bool is_weight(uint n) { return n < weight_columns; }
uint weight_index(uint k, uint n) { return k * weight_columns + n; }
#endif

void describe_column(uint n, out uint plane, out ivec2 reach) {
    uint tap = tap_of(n);
#ifdef ROWS_IN_LANES
    uint channel = group * vectors(channels()) + channel_of(n) / 4;
#else
    uint channel = group * channels() + channel_of(n);
#endif
    plane = n < weight_columns ? channel * input_plane : n < n_count ? PLANE_ONES : PLANE_NONE;
    reach = ivec2(tap / pc.S * pc.dilation_h, tap % pc.S * pc.dilation_w) - ivec2(pc.padding_h, pc.padding_w);
}

// An output pixel: where its gradient lies, and what its window begins at.
struct Pixel {
    uint image;
    ivec2 at;
};

Pixel decode(uint pixel) {
    uint in_plane = pixel % output_plane;
    return Pixel(pixel / output_plane, ivec2(in_plane / pc.Q, in_plane % pc.Q));
}

void advance(inout Pixel pixel) {
    pixel.at.y += 1;
    bool row_ends = pixel.at.y == pc.Q;
    pixel.at = row_ends ? ivec2(pixel.at.x + 1, 0) : pixel.at;
    bool image_ends = pixel.at.x == pc.P;
    pixel.at.x = image_ends ? 0 : pixel.at.x;
    pixel.image += image_ends ? 1 : 0;
}

ivec2 window_begin(Pixel pixel) {
    return pixel.at * ivec2(pc.stride_h, pc.stride_w);
}

bool inside(ivec2 source) {
    return uint(source.x) < pc.H && uint(source.y) < pc.W;
}

#ifdef ROWS_IN_LANES

// Four channels of an output pixel's gradient.
vec4 gradients(Pixel pixel, uint vector) {
    uint plane = (pixel.image * pc.groups + group) * vectors(m_count) + vector;
    return floats(OUTPUT_VECTOR(plane * output_plane + pixel.at.x * pc.Q + pixel.at.y));
}

// What a pixel's window holds for this thread's columns.
vec4 window(Pixel pixel) {
    if (own_plane >= PLANE_ONES) {
        return vec4(own_plane == PLANE_ONES ? 1 : 0, 0, 0, 0);
    }
    ivec2 source = window_begin(pixel) + own_reach;
    vec4 value = vec4(0);
    if (inside(source)) {
        uint image = pixel.image * pc.groups * vectors(channels()) * input_plane;
        value = floats(INPUT_VECTOR(image + own_plane + uint(source.x) * pc.W + uint(source.y)));
    }
    return value;
}

#else

float gradient(Pixel pixel, uint m) {
    return OUTPUT(((pixel.image * pc.K + group * m_count + m) * pc.P + pixel.at.x) * pc.Q + pixel.at.y);
}

// What a pixel's window holds for a column.
float window(Pixel pixel, uint plane, ivec2 reach) {
    if (plane >= PLANE_ONES) {
        return plane == PLANE_ONES ? 1 : 0;
    }
    ivec2 source = window_begin(pixel) + reach;
    float value = 0;
    if (inside(source)) {
        value = INPUT(pixel.image * pc.C * input_plane + plane + uint(source.x) * pc.W + uint(source.y));
    }
    return value;
}

#endif

#ifdef OWN_COLUMNS
Pixel next; // next_pixel, decoded

void fetch() {
    uint first = next_pixel;
    Pixel pixels[BLOCK];
    [[unroll]] for (uint step = 0; step < BLOCK; ++step) {
        pixels[step] = next;
        advance(next);
    }
    next_pixel += BLOCK;
#ifdef ROWS_IN_LANES
    [[unroll]] for (uint i = 0; i < BLOCK * A_VECTORS; ++i) {
        uint step = a_step(i);
        uint vector = first_m / 4 + a_vector(i);
        a_next[i] = vec4(0);
        if (first + step < end_pixel && vector < vectors(m_count)) {
            a_next[i] = gradients(pixels[step], vector);
        }
    }
    [[unroll]] for (uint step = 0; step < BLOCK; ++step) {
        b_next[step] = vec4(0);
        if (first + step < end_pixel) {
            b_next[step] = window(pixels[step]);
        }
    }
#else
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint pixel = first + a_row(i);
        uint m = first_m + a_m(i);
        a_next[i] = 0;
        if (pixel < end_pixel && m < m_count) {
            a_next[i] = gradient(decode(pixel), m);
        }
    }
    [[unroll]] for (uint i = 0; i < BLOCK * THREAD_N; ++i) {
        b_next[i] = 0;
        if (first + i / THREAD_N < end_pixel) {
            b_next[i] = window(pixels[i / THREAD_N], own_plane[i % THREAD_N], own_reach[i % THREAD_N]);
        }
    }
#endif
}
#else
void fetch() {
    bool exists = next_pixel < end_pixel;
    Pixel pixel = decode(next_pixel);
    next_pixel += BLOCK;
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint m = first_m + column_of(i);
        a_next[i] = 0;
        if (exists && m < m_count) {
            a_next[i] = gradient(pixel, m);
        }
    }
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint n = column_of(i);
        b_next[i] = 0;
        if (exists) {
            b_next[i] = window(pixel, column_plane[n], column_reach[n]);
        }
    }
}
#endif

void store_gradient(uint slice, uint m, uint n, float sum) {
    if (m >= m_count) {
        return;
    }
    uint k = slice * pc.K + group * m_count + m;
    if (is_weight(n)) {
        WEIGHT(weight_index(k, n)) = sum;
    } else if (n >= weight_columns && n < n_count) {
        BIAS(k) = sum;
    }
}

void store(uint slice) {
#ifdef OWN_COLUMNS
    EACH_RESULT(uint i = 0; i < RESULTS; ++i) {
        store_gradient(slice, first_m + result_m(i / THREAD_N), first_n + result_n(i % THREAD_N), totals[i]);
    }
#else
    for (uint first = 0; first < TILE_M; first += STAGED_ROWS) {
        stage(first);
        for (uint row = store_row(); row < STAGED_ROWS; row += STORE_STEP) {
            store_gradient(slice, first_m + first + row, first_n + store_column(), staged(row, store_column()));
        }
    }
#endif
}

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    m_count = pc.K / pc.groups;
    input_plane = pc.H * pc.W;
    output_plane = pc.P * pc.Q;
#ifdef ROWS_IN_LANES
    weight_columns = pc.R * pc.S * vectors(channels()) * 4;
#else
    weight_columns = pc.R * pc.S * channels();
#endif
    n_count = weight_columns + pc.has_bias;
    uint pixels = pc.N * output_plane;

    uint tiles_m = (m_count + TILE_M - 1) / TILE_M;
    uint tiles_n = (n_count + TILE_N - 1) / TILE_N;
    first_m = tile % tiles_m * TILE_M;
    first_n = tile / tiles_m % tiles_n * TILE_N;
    group = tile / tiles_m / tiles_n % pc.groups;
    uint split = tile / tiles_m / tiles_n / pc.groups;
    first_pixel = split * SPLIT_PIXELS;
    end_pixel = min(first_pixel + SPLIT_PIXELS, pixels);

#if defined(ROWS_IN_LANES)
    describe_column(first_n + result_n(0), own_plane, own_reach);
#elif defined(OWN_COLUMNS)
    [[unroll]] for (uint j = 0; j < THREAD_N; ++j) {
        describe_column(first_n + result_n(j), own_plane[j], own_reach[j]);
    }
#else
    for (uint n = gl_LocalInvocationIndex; n < TILE_N; n += THREADS) {
        describe_column(first_n + n, column_plane[n], column_reach[n]);
    }
    barrier();
#endif
#ifdef OWN_COLUMNS
    next_pixel = first_pixel;
    next = decode(first_pixel);
#else
    next_pixel = first_pixel + step_of();
#endif

    multiply((end_pixel - first_pixel + BLOCK - 1) / BLOCK);

    store(FIRST_SPLIT + split);
}
