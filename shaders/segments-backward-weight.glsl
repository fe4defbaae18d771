// dweight (and dbias) as dot products along segments of output rows, for a size of permutations.txt: a workgroup sums
// TILE_K output channels × TILE_C input channels × all taps over the blocks of one split. Splits are summed by
// reduce-splits.glsl.
// All tiles of input channels load the same dy, so they share the bias's gradient, and no workgroup ends last: tile i of n
// sums blocks i, i + n and so on, and writes a slice of its own.
//
// Both operands lie in shared memory as they lie in global memory, pixels side by side, so nothing is transposed. A thread
// keeps THREAD_K output channels × THREAD_C input channels × all taps; it reads vectors of four pixels, and a row of x
// serves all taps of a kernel row from registers. Rows of shared memory have an odd number of vectors, so that
// neighbouring rows hit different banks. Shared memory is double-buffered, and filled in the round of the loop after
// the one that loads, as in lib/tile_shared.glsl.
//
// A block is LINES output rows of one image × COLUMNS pixels of each, no more than 64 products of a sum. Several rows
// read some rows of x in common: such sizes are for the same stride and dilation from row to row as along a row. Where
// a block's rows are whole, or its planes, it is known while this is compiled which of its products are with padding:
// they are left out.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define INPUT_VECTORS readonly
#define WEIGHT_ACCESS
#define WEIGHT_VECTORS
#define BIAS_ACCESS
#define OUTPUT_ACCESS readonly
#define OUTPUT_VECTORS readonly
#include "lib/problem.glsl"
#include "lib/chain.glsl"
#include "lib/patch.glsl"
#include "lib/unpack.glsl"
#include "lib/vectors.glsl"

#define SPLIT_BLOCKS pc.extra_0 // blocks that one split sums
#define FIRST_SPLIT pc.extra_1  // slice that the first split of this dispatch writes

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout(constant_id = 0) const bool WHOLE_BLOCKS = false;   // every row and column of every block exists
layout(constant_id = 1) const bool WHOLE_K = false;        // every output channel of every tile exists
layout(constant_id = 2) const bool WHOLE_C = false;        // every input channel of every tile exists
#if COLUMNS > 28
#define VECTORS_IN_LOOP // lines are summed vector by vector, in a loop; unrolled, it only takes drivers longer to compile
const bool WHOLE_ROWS = false; // there, it would take a branch for every product
#else
layout(constant_id = 3) const bool WHOLE_ROWS = false;     // a block's rows are whole ones of both tensors, alike padded
#endif
#if LINES > 2
layout(constant_id = 4) const bool WHOLE_PLANES = false;   // and so are its planes
#else
const bool WHOLE_PLANES = false; // of so few lines they are rare
#endif

const uint TAPS = KERNEL_R * KERNEL_S;
const uint PIXELS = LINES * COLUMNS; // of a block

const uint QUADS = (COLUMNS + 3) / 4;                                             // vectors of a segment of dy
const uint REACH = (3 * STRIDE + (KERNEL_S - 1) * DILATION + 4) / 4;              // vectors of x that four pixels read
const uint KEPT = REACH > STRIDE ? REACH - STRIDE : 0;                            // of which the next four read so many
const uint X_COLUMNS = (COLUMNS - 1) * STRIDE + (KERNEL_S - 1) * DILATION + 1;    // that a segment reads
const uint DY_ROW = LINES * QUADS | 1;
const uint X_ROW = ((QUADS - 1) * STRIDE + REACH) | 1;
const uint X_APART = LINES > 1 ? DILATION : 1; // rows of x_tile from one of a window to the next
const uint X_LINES = (LINES - 1) * STRIDE + (KERNEL_R - 1) * X_APART + 1; // rows of x that a block reads

shared vec4 dy_tile[2 * TILE_K * DY_ROW];
shared vec4 x_tile[2 * X_LINES * TILE_C * X_ROW];

// Threads side by side when they load: along a row, or along a block's pixels where its rows are not whole vectors.
#define LANES_FOR(count) ((count) <= 4 ? 4 : (count) <= 8 ? 8 : (count) <= 16 ? 16 : (count) <= 32 ? 32 : 64)
#if COLUMNS % 4 == 0
const uint DY_ITEMS = QUADS;
const uint DY_TIMES = LINES;
#define DY_ITEM vec4
#else
#define DY_BY_ELEMENTS
const uint DY_ITEMS = PIXELS;
const uint DY_TIMES = 1;
#define DY_ITEM float
#endif
const uint DY_LANES = LANES_FOR(DY_ITEMS);
const uint DY_STEP = THREADS / DY_LANES;
const uint DY_LOADS = TILE_K / DY_STEP;
#if KERNEL_S == 1 && STRIDE == 1
#define X_BY_VECTORS
const uint X_ITEMS = QUADS;
#define X_ITEM vec4
#else
const uint X_ITEMS = X_COLUMNS;
#define X_ITEM float
#endif
const uint X_LANES = LANES_FOR(X_ITEMS);
const uint X_STEP = THREADS / X_LANES;
const uint X_LOADS = TILE_C / X_STEP;

DY_ITEM dy_next[DY_TIMES * DY_LOADS];
X_ITEM x_next[X_LINES * X_LOADS];

const uint RESULTS = THREAD_K * THREAD_C * TAPS;
float sums[RESULTS]; // [output channel][input channel][tap]
float totals[RESULTS];
vec4 bias_sums; // a thread's part of those of output channel gl_LocalInvocationIndex % TILE_K of the tile
float bias_total = 0;
const uint BIAS_PARTS = THREADS / TILE_K;

// A thread's output channels lie K_APART apart, its input channels C_APART.
const uint K_APART = TILE_K / THREAD_K;
const uint C_APART = TILE_C / THREAD_C;
uint own_k() { return patch_index() % (K_APART / 8) * 8 + patch_n(); }
uint own_c() { return patch_index() / (K_APART / 8) * 4 + patch_m(); }

// Rows of results, of an output channel each, that are in shared memory at once when they are stored.
const uint RESULT_ROW = TILE_C * TAPS;
const uint FITTING_K = 4 * 2 * TILE_K * DY_ROW / RESULT_ROW;
const uint STAGED_K = FITTING_K < TILE_K ? FITTING_K : TILE_K;

uint group, first_k, first_c, k_count, c_count;
uint next_image, next_line, next_segment; // of the block to be fetched

// Sizes, known while this is compiled where blocks are planes. A choice by WHOLE_ROWS, too, would cost registers.
uint dy_width() { return WHOLE_PLANES ? COLUMNS : pc.Q; }
uint dy_height() { return WHOLE_PLANES ? LINES : pc.P; }
uint x_width() { return WHOLE_PLANES ? COLUMNS : pc.W; }
uint x_height() { return WHOLE_PLANES ? LINES : pc.H; }
uint padding_h() { return WHOLE_PLANES ? (KERNEL_R - 1) * DILATION / 2 : pc.padding_h; }
uint lines_of_blocks() { return (dy_height() + LINES - 1) / LINES; }
uint segments() { return (dy_width() + COLUMNS - 1) / COLUMNS; }

// dy at element `at`, or the four from there on; zeros where nothing exists, or beyond the columns left of the row.
#ifdef DY_BY_ELEMENTS
float read_dy(uint at, uint columns_left, bool exists) {
    float read = 0;
    if (exists) {
        read = OUTPUT(at);
    }
    return read;
}
#else
vec4 read_dy(uint at, uint columns_left, bool exists) {
    vec4 read = vec4(0);
    if ((VECTORS & VECTORS_OUTPUT) != 0) {
        if (exists) {
            read = OUTPUT_VECTOR(at / 4);
        }
        return read;
    }
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        if (exists && i < columns_left) {
            read[i] = OUTPUT(at + i);
        }
    }
    return read;
}
#endif

// x at element `at`, column `column` of its row, zeros beyond it.
#ifdef X_BY_VECTORS
vec4 read_x(uint at, uint column, bool exists) {
    vec4 read = vec4(0);
    if ((VECTORS & VECTORS_INPUT) != 0) {
        if (exists && column < x_width()) {
            read = INPUT_VECTOR(at / 4);
        }
        return read;
    }
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        if (exists && column + i < x_width()) {
            read[i] = INPUT(at + i);
        }
    }
    return read;
}
#else
float read_x(uint at, uint column, bool exists) {
    float read = 0;
    if (exists && column < x_width()) {
        read = INPUT(at);
    }
    return read;
}
#endif

// What this thread loads and stores of a block. Threads beyond the items do as the last item's does: without a branch,
// that is faster than letting them wait.
uint lane(uint lanes, uint items) {
    uint own = gl_LocalInvocationIndex % lanes;
    return items == lanes ? own : min(own, items - 1);
}
uint dy_lane() { return lane(DY_LANES, DY_ITEMS); }
uint dy_first() { return gl_LocalInvocationIndex / DY_LANES; }
uint x_lane() { return lane(X_LANES, X_ITEMS); }
uint x_first() { return gl_LocalInvocationIndex / X_LANES; }
#ifdef DY_BY_ELEMENTS
uint dy_line() { return dy_lane() / COLUMNS; }
uint dy_column() { return dy_lane() % COLUMNS; }
#else
uint dy_line() { return 0; }
uint dy_column() { return 4 * dy_lane(); }
#endif

// Of a tile's channels, the one that a thread's loads are counted from: its own first, or the tile's where some channels
// do not exist, for some drivers do not take distances in addresses modulo 2³².
uint counted_from(bool whole, uint first) { return whole ? first : 0; }

// Elements from there to its i-th, or to the last one that exists.
uint channels_on(bool whole, uint first, uint i, uint step, uint last, uint plane) {
    return (whole ? i * step : min(first + i * step, last)) * plane;
}

void fetch() {
    uint column = next_segment * COLUMNS + dy_column();
    uint dy_channel = next_image * pc.K + group * k_count + first_k + counted_from(WHOLE_K, dy_first());
    uint dy_at = (dy_channel * dy_height() + next_line + dy_line()) * dy_width() + column;
    [[unroll]] for (uint i = 0; i < DY_TIMES * DY_LOADS; ++i) {
        uint line = i / DY_LOADS;
        uint on = channels_on(WHOLE_K, dy_first(), i % DY_LOADS, DY_STEP, k_count - 1 - first_k, dy_height() * dy_width());
        bool exists = WHOLE_BLOCKS || (next_line + dy_line() + line < dy_height() && column < dy_width());
        dy_next[i] = read_dy(dy_at + line * dy_width() + on, dy_width() - column, exists);
    }
#ifdef X_BY_VECTORS
    uint x_column = next_segment * COLUMNS + 4 * x_lane() - pc.padding_w;
#else
    uint x_column = next_segment * COLUMNS * STRIDE + x_lane() - pc.padding_w;
#endif
    uint x_channel = next_image * pc.C + group * c_count + first_c + counted_from(WHOLE_C, x_first());
    uint first_row = next_line * pc.stride_h - padding_h();
    uint x_at = (x_channel * x_height() + first_row) * x_width() + x_column;
    [[unroll]] for (uint i = 0; i < X_LINES * X_LOADS; ++i) {
        uint row = i / X_LOADS * (LINES > 1 ? 1 : pc.dilation_h);
        uint on = channels_on(WHOLE_C, x_first(), i % X_LOADS, X_STEP, c_count - 1 - first_c, x_height() * x_width());
        x_next[i] = read_x(x_at + row * x_width() + on, x_column, first_row + row < x_height());
    }
    ++next_segment;
    if (next_segment == segments()) {
        next_segment = 0;
        next_line += LINES;
    }
    if (next_line >= dy_height()) {
        next_line = 0;
        ++next_image;
    }
}

// Whether a place of an axis, counted from where the padding begins, is padding, if the axis has so many pixels, all of
// a block, and the kernel so many elements.
bool in_padding(uint place, uint pixels, uint elements) {
    uint padding = (elements - 1) * DILATION / 2;
    return place < padding || place >= padding + pixels;
}

void place(uint half_index) {
    uint dy_at = (half_index * TILE_K + dy_first()) * DY_ROW + dy_line() * QUADS + dy_column() / 4;
    [[unroll]] for (uint i = 0; i < DY_TIMES * DY_LOADS; ++i) {
        uint row_at = dy_at + i % DY_LOADS * (DY_STEP * DY_ROW) + i / DY_LOADS * QUADS;
#ifdef DY_BY_ELEMENTS
        dy_tile[row_at][dy_column() % 4] = dy_next[i];
#else
        dy_tile[row_at] = dy_next[i];
#endif
    }
    uint x_at = (half_index * X_LINES * TILE_C + x_first()) * X_ROW;
    [[unroll]] for (uint i = 0; i < X_LINES * X_LOADS; ++i) {
        uint row = i / X_LOADS;
        if (in_padding(row, LINES, KERNEL_R) && WHOLE_PLANES) {
            continue; // no product uses it
        }
        uint row_at = x_at + (row * TILE_C + i % X_LOADS * X_STEP) * X_ROW;
#ifdef X_BY_VECTORS
        x_tile[row_at + x_lane()] = x_next[i];
#else
        x_tile[row_at + x_lane() / 4][x_lane() % 4] = x_next[i];
#endif
    }
}

#ifdef VECTORS_IN_LOOP
#define EACH_QUAD [[dont_unroll]] for
#else
#define EACH_QUAD [[unroll]] for
#endif

// Drivers unroll this loop, shaderc does not. For two lines of 28 pixels that only takes them longer to compile.
#if LINES == 2 && COLUMNS > 16
#define EACH_LINE [[dont_unroll]] for
#else
#define EACH_LINE [[unroll]] for
#endif

// Of a line with so many columns left. In whole planes, so many rows of the kernel are above it and below it in padding.
void multiply_line(uint half_index, uint line, uint columns_left, uint above, uint below) {
    uint dy_at = (half_index * TILE_K + own_k()) * DY_ROW + line * QUADS;
    uint x_at = ((half_index * X_LINES + line * STRIDE) * TILE_C + own_c()) * X_ROW;
    float window[4 * KERNEL_R * THREAD_C * REACH]; // [row][input channel][column]
    [[unroll]] for (uint i = 0; i < KERNEL_R * THREAD_C * KEPT; ++i) {
        uint row = i / KEPT / THREAD_C * X_APART * TILE_C + i / KEPT % THREAD_C * C_APART;
        UNPACK(x_tile[x_at + row * X_ROW + i % KEPT], window, 4 * (i / KEPT * REACH + i % KEPT))
    }
    EACH_QUAD (uint quad = 0; quad < QUADS; ++quad) {
        [[unroll]] for (uint i = 0; i < KERNEL_R * THREAD_C * (REACH - KEPT); ++i) {
            uint at = i / (REACH - KEPT);
            uint vector = KEPT + i % (REACH - KEPT);
            uint row = at / THREAD_C * X_APART * TILE_C + at % THREAD_C * C_APART;
            UNPACK(x_tile[x_at + row * X_ROW + quad * STRIDE + vector], window, 4 * (at * REACH + vector))
        }
        [[unroll]] for (uint k = 0; k < THREAD_K; ++k) {
            float gradients[4];
            UNPACK(dy_tile[dy_at + k * K_APART * DY_ROW + quad], gradients, 0)
            [[unroll]] for (uint i = 0; i < 4 * THREAD_C * TAPS; ++i) {
                uint pixel = i / (THREAD_C * TAPS);
                uint c = i / TAPS % THREAD_C;
                uint column = pixel * STRIDE + i % KERNEL_S * DILATION;
                uint r = i / KERNEL_S % KERNEL_R;
                uint at = k * THREAD_C * TAPS + i % (THREAD_C * TAPS);
                // What shaderc knows comes first, or it keeps a branch for every product.
                bool beside = in_padding(4 * quad * STRIDE + column, COLUMNS, KERNEL_S) && WHOLE_ROWS;
                bool beyond = (r < above || r >= KERNEL_R - below) && WHOLE_PLANES;
                bool exists = COLUMNS % 4 == 0 || 4 * quad + pixel < COLUMNS;
                if (exists && !beside && !beyond) {
                    float x = window[4 * (r * THREAD_C + c) * REACH + column];
                    float sum = fma(gradients[pixel], x, sums[at]);
                    // What lies beyond dy adds nothing, not even zero times infinity.
                    sums[at] = 4 * quad + pixel < columns_left ? sum : sums[at];
                }
            }
        }
        [[unroll]] for (uint i = 0; i < 4 * KERNEL_R * THREAD_C * KEPT; ++i) {
            uint at = 4 * (i / (4 * KEPT) * REACH) + i % (4 * KEPT);
            window[at] = window[at + 4 * STRIDE];
        }
    }
}

void multiply_block(uint half_index, uint lines_left, uint columns_left) {
    // Of whole planes, the first and the last line have products with padding, and are apart.
    const uint BEGIN = LINES > 2 ? 1 : 0;
    const uint END = LINES - BEGIN;
#if LINES > 2
    const uint PADDED = KERNEL_R / 2;
    multiply_line(half_index, 0, columns_left, PADDED, 0);
#endif
    EACH_LINE (uint line = BEGIN; line < END; ++line) {
        if (LINES == 1 || WHOLE_BLOCKS || line < lines_left) {
            multiply_line(half_index, line, columns_left, 0, 0);
        }
    }
#if LINES > 2
    if (WHOLE_BLOCKS || END < lines_left) {
        multiply_line(half_index, END, columns_left, 0, PADDED);
    }
#endif
}

void sum_bias(uint half_index) {
    uint part = gl_LocalInvocationIndex / TILE_K;
    uint row_at = (half_index * TILE_K + gl_LocalInvocationIndex % TILE_K) * DY_ROW;
    [[unroll]] for (uint i = 0; i < LINES * QUADS; i += BIAS_PARTS) {
        uint quad = i + part;
        if (LINES * QUADS % BIAS_PARTS == 0 || quad < LINES * QUADS) {
            // Of rows that are no whole vectors, the last one's rest is not written.
            bvec4 exist = lessThan(quad % QUADS * 4 + uvec4(0, 1, 2, 3), uvec4(COLUMNS));
            bias_sums += mix(vec4(0), dy_tile[row_at + quad], exist);
        }
    }
}

// The parts, in their order.
void store_bias(uint slice) {
    barrier();
    dy_tile[gl_LocalInvocationIndex / 4][gl_LocalInvocationIndex % 4] = bias_total;
    barrier();
    uint k = first_k + gl_LocalInvocationIndex;
    if (gl_LocalInvocationIndex < TILE_K && k < k_count) {
        for (uint at = gl_LocalInvocationIndex + TILE_K; at < THREADS; at += TILE_K) {
            bias_total += dy_tile[at / 4][at % 4];
        }
        BIAS(slice * pc.K + group * k_count + k) = bias_total;
    }
}

// A thread's results lie apart in memory, so they go through shared memory: neighbouring threads store neighbours, for
// each written piece of memory costs as much as a whole one.
void store_totals(uint slice) {
    uint first_row = slice * pc.K + group * k_count + first_k;
    uint rows_left = min(TILE_K, k_count - first_k);
    bool by_vectors = WHOLE_C && WEIGHT_HAS_VECTORS; // of two short loops, compiled in no time
    for (uint first = 0; first < rows_left; first += STAGED_K) {
        barrier();
        [[unroll]] for (uint i = 0; i < RESULTS; ++i) {
            uint row = own_k() + i / (THREAD_C * TAPS) * K_APART - first;
            uint at = row * RESULT_ROW + (own_c() + i / TAPS % THREAD_C * C_APART) * TAPS + i % TAPS;
            if (STAGED_K == TILE_K || row < STAGED_K) {
                dy_tile[at / 4][at % 4] = totals[i];
            }
        }
        barrier();
        uint rows = min(STAGED_K, rows_left - first);
        if (by_vectors) {
            for (uint at = gl_LocalInvocationIndex; at < rows * (RESULT_ROW / 4); at += THREADS) {
                uint row = first_row + first + at / (RESULT_ROW / 4);
                uint column = first_c * TAPS / 4 + at % (RESULT_ROW / 4);
                WEIGHT_VECTOR(row * (c_count * TAPS / 4) + column) = dy_tile[at];
            }
            continue;
        }
        for (uint at = gl_LocalInvocationIndex; at < rows * RESULT_ROW; at += THREADS) {
            uint row = first_row + first + at / RESULT_ROW;
            uint column = first_c * TAPS + at % RESULT_ROW;
            if (column < c_count * TAPS) {
                WEIGHT(row * c_count * TAPS + column) = dy_tile[at / 4][at % 4];
            }
        }
    }
}

void main() {
    uint tile = tile_index();
    if (tile >= pc.tile_end) {
        return;
    }
    k_count = pc.K / pc.groups;
    c_count = pc.C / pc.groups;
    uint tiles_k = (k_count + TILE_K - 1) / TILE_K;
    uint tiles_c = (c_count + TILE_C - 1) / TILE_C;
    first_k = tile % tiles_k * TILE_K;
    uint tile_c = tile / tiles_k % tiles_c;
    first_c = tile_c * TILE_C;
    group = tile / tiles_k / tiles_c % pc.groups;
    uint split = tile / tiles_k / tiles_c / pc.groups;

    // Blocks until the next whose part of the bias's gradient this workgroup sums.
    uint until_bias = pc.has_bias != 0 ? tile_c : 0xFFFFFFFFu;

    uint first = split * SPLIT_BLOCKS;
    uint blocks = min(SPLIT_BLOCKS, pc.N * lines_of_blocks() * segments() - first);
    next_segment = first % segments();
    next_line = first / segments() % lines_of_blocks() * LINES;
    next_image = first / segments() / lines_of_blocks();
    [[unroll]] for (uint i = 0; i < RESULTS; ++i) {
        totals[i] = 0;
    }
    uint line = next_line;
    uint segment = next_segment;
    fetch();
    uint chained = chain_of(blocks * PIXELS) / PIXELS;
    for (uint chain = 0; chain < blocks; chain += chained) {
        [[unroll]] for (uint i = 0; i < RESULTS; ++i) {
            sums[i] = 0;
        }
        bias_sums = vec4(0);
        uint end = min(chain + chained, blocks);
        for (uint block = chain; block < end; ++block) {
            place(block % 2);
            barrier();
            uint lines_left = dy_height() - line;
            uint columns_left = WHOLE_BLOCKS ? COLUMNS : dy_width() - segment * COLUMNS;
            line = next_line;
            segment = next_segment;
            if (block + 1 < blocks) {
                fetch();
            }
            multiply_block(block % 2, lines_left, columns_left);
            if (until_bias == 0) {
                sum_bias(block % 2);
                until_bias = tiles_c;
            }
            --until_bias;
        }
        [[unroll]] for (uint i = 0; i < RESULTS; ++i) {
            totals[i] += sums[i];
        }
        bias_total += dot(bias_sums, vec4(1));
    }

    uint slice = FIRST_SPLIT + split;
    store_totals(slice);
    if (pc.has_bias != 0) {
        store_bias(slice * tiles_c + tile_c);
    }
}
