// dweight (and dbias) as dot products along segments of output rows, for a size of permutations.txt: a workgroup sums
// TILE_K output channels × TILE_C input channels × all taps over the blocks of one split. Splits are summed by
// reduce-splits.glsl.
//
// Both operands lie in shared memory as they lie in global memory, pixels side by side, so nothing is transposed. A thread
// keeps THREAD_K output channels × THREAD_C input channels × all taps; it reads vectors of four pixels, and a row of x
// serves all taps of a kernel row from registers. Rows of shared memory have an odd number of vectors, so that
// neighbouring rows hit different banks. Shared memory is double-buffered: one barrier a block.
//
// A block is LINES output rows of one image × COLUMNS pixels of each, no more than 64 products of a sum.
#version 450
#extension GL_GOOGLE_include_directive : require

#define INPUT_ACCESS readonly
#define INPUT_VECTORS readonly
#define WEIGHT_ACCESS
#define BIAS_ACCESS
#define OUTPUT_ACCESS readonly
#define OUTPUT_VECTORS readonly
#include "lib/problem.glsl"

#define SPLIT_BLOCKS pc.extra_0 // blocks that one split sums
#define FIRST_SPLIT pc.extra_1  // slice that the first split of this dispatch writes

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout(constant_id = 0) const bool WHOLE_SEGMENTS = false; // every column of every segment exists
layout(constant_id = 1) const bool WHOLE_K = false;        // every output channel of every tile exists
layout(constant_id = 2) const bool WHOLE_C = false;        // every input channel of every tile exists
layout(constant_id = 15) const uint VECTORS = 0;           // VECTORS_*: tensors that are read by vectors
const uint VECTORS_INPUT = 1;
const uint VECTORS_OUTPUT = 2;

const uint TAPS = KERNEL_R * KERNEL_S;
const uint PROMOTE = 64 / (COLUMNS * LINES); // blocks chained before they are added to the totals

const uint QUADS = (COLUMNS + 3) / 4;                                             // vectors of a segment of dy
const uint REACH = (3 * STRIDE + (KERNEL_S - 1) * DILATION + 4) / 4;              // vectors of x that four pixels read
const uint KEPT = REACH > STRIDE ? REACH - STRIDE : 0;                            // of which the next four read so many
const uint X_COLUMNS = (COLUMNS - 1) * STRIDE + (KERNEL_S - 1) * DILATION + 1;    // that a segment reads
const uint DY_ROW = LINES * QUADS | 1;
const uint X_ROW = ((QUADS - 1) * STRIDE + REACH) | 1;
const uint X_ROWS = LINES * KERNEL_R * TILE_C;

shared vec4 dy_tile[2 * TILE_K * DY_ROW];
shared vec4 x_tile[2 * X_ROWS * X_ROW];

// Threads side by side along a row when they load.
#define LANES_FOR(count) ((count) <= 4 ? 4 : (count) <= 8 ? 8 : (count) <= 16 ? 16 : (count) <= 32 ? 32 : 64)
const uint DY_LANES = LANES_FOR(QUADS);
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
const uint X_LOADS = (TILE_C + X_STEP - 1) / X_STEP;

vec4 dy_next[LINES * DY_LOADS];
X_ITEM x_next[LINES * KERNEL_R * X_LOADS];

const uint RESULTS = THREAD_K * THREAD_C * TAPS;
float sums[RESULTS]; // [output channel][input channel][tap]
float totals[RESULTS];
float bias_sum = 0, bias_total = 0; // of output channel gl_LocalInvocationIndex of the tile

// A thread's output channels lie K_APART apart, its input channels C_APART.
const uint K_APART = TILE_K / THREAD_K;
const uint C_APART = TILE_C / THREAD_C;
uint own_k() { return gl_LocalInvocationIndex / 32 % (K_APART / 8) * 8 + gl_LocalInvocationIndex % 8; }
uint own_c() { return gl_LocalInvocationIndex / 32 / (K_APART / 8) * 4 + gl_LocalInvocationIndex % 32 / 8; }

uint group, first_k, first_c, k_count, c_count;
uint next_image, next_line, next_segment; // of the block to be fetched

uint lines_of_blocks() { return (pc.P + LINES - 1) / LINES; }
uint segments() { return (pc.Q + COLUMNS - 1) / COLUMNS; }

// Columns `column` to column + 3 of a row of dy, zeros beyond it.
vec4 read_dy(uint row_at, uint column, bool exists) {
    vec4 read = vec4(0);
    if ((VECTORS & VECTORS_OUTPUT) != 0) {
        if (exists && column < pc.Q) {
            read = OUTPUT_VECTOR((row_at + column) / 4);
        }
        return read;
    }
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        if (exists && column + i < pc.Q) {
            read[i] = OUTPUT(row_at + column + i);
        }
    }
    return read;
}

// The same of a row of x.
#ifdef X_BY_VECTORS
vec4 read_x(uint row_at, int column, bool exists) {
    vec4 read = vec4(0);
    if ((VECTORS & VECTORS_INPUT) != 0) {
        if (exists && uint(column) < pc.W) {
            read = INPUT_VECTOR((row_at + column) / 4);
        }
        return read;
    }
    [[unroll]] for (int i = 0; i < 4; ++i) {
        if (exists && uint(column + i) < pc.W) {
            read[i] = INPUT(row_at + column + i);
        }
    }
    return read;
}
#else
float read_x(uint row_at, int column, bool exists) {
    float read = 0;
    if (exists && uint(column) < pc.W) {
        read = INPUT(row_at + column);
    }
    return read;
}
#endif

void fetch() {
    uint dy_lane = gl_LocalInvocationIndex % DY_LANES;
    uint dy_first = gl_LocalInvocationIndex / DY_LANES;
    uint x_lane = gl_LocalInvocationIndex % X_LANES;
    uint x_first = gl_LocalInvocationIndex / X_LANES;
    uint dy_plane = next_image * pc.K + group * k_count + first_k;
    uint x_plane = next_image * pc.C + group * c_count + first_c;
#ifdef X_BY_VECTORS
    int x_column = int(next_segment * COLUMNS + 4 * x_lane) - int(pc.padding_w);
#else
    int x_column = int(next_segment * COLUMNS * STRIDE + x_lane) - int(pc.padding_w);
#endif
    [[unroll]] for (uint i = 0; i < LINES * DY_LOADS; ++i) {
        uint p = next_line + i / DY_LOADS;
        uint k = dy_first + i % DY_LOADS * DY_STEP;
        k = WHOLE_K ? k : min(k, k_count - 1 - first_k);
        uint row_at = ((dy_plane + k) * pc.P + p) * pc.Q;
        bool exists = p < pc.P && (QUADS == DY_LANES || dy_lane < QUADS);
        dy_next[i] = read_dy(row_at, next_segment * COLUMNS + 4 * dy_lane, exists);
    }
    [[unroll]] for (uint i = 0; i < LINES * KERNEL_R * X_LOADS; ++i) {
        uint p = next_line + i / (KERNEL_R * X_LOADS);
        uint r = i / X_LOADS % KERNEL_R;
        uint c = x_first + i % X_LOADS * X_STEP;
        c = WHOLE_C && TILE_C % X_STEP == 0 ? c : min(c, c_count - 1 - first_c);
        int row = int(p * pc.stride_h + r * pc.dilation_h) - int(pc.padding_h);
        uint row_at = ((x_plane + c) * pc.H + uint(row)) * pc.W;
        bool exists = p < pc.P && uint(row) < pc.H && (X_ITEMS == X_LANES || x_lane < X_ITEMS);
        x_next[i] = read_x(row_at, x_column, exists);
    }
    ++next_segment;
    if (next_segment == segments()) {
        next_segment = 0;
        next_line += LINES;
    }
    if (next_line >= pc.P) {
        next_line = 0;
        ++next_image;
    }
}

void place(uint half_index) {
    uint dy_lane = gl_LocalInvocationIndex % DY_LANES;
    uint dy_first = gl_LocalInvocationIndex / DY_LANES;
    uint x_lane = gl_LocalInvocationIndex % X_LANES;
    uint x_first = gl_LocalInvocationIndex / X_LANES;
    [[unroll]] for (uint i = 0; i < LINES * DY_LOADS; ++i) {
        uint k = dy_first + i % DY_LOADS * DY_STEP;
        if (QUADS == DY_LANES || dy_lane < QUADS) {
            dy_tile[(half_index * TILE_K + k) * DY_ROW + i / DY_LOADS * QUADS + dy_lane] = dy_next[i];
        }
    }
    [[unroll]] for (uint i = 0; i < LINES * KERNEL_R * X_LOADS; ++i) {
        uint c = x_first + i % X_LOADS * X_STEP;
        uint row_at = ((half_index * LINES * KERNEL_R + i / X_LOADS) * TILE_C + c) * X_ROW;
        if ((X_ITEMS == X_LANES || x_lane < X_ITEMS) && (TILE_C % X_STEP == 0 || c < TILE_C)) {
#ifdef X_BY_VECTORS
            x_tile[row_at + x_lane] = x_next[i];
#else
            x_tile[row_at + x_lane / 4][x_lane % 4] = x_next[i];
#endif
        }
    }
}

// Of a block at segment `segment`: columns that are left of the row.
void multiply_block(uint half_index, uint columns_left) {
    for (uint line = 0; line < LINES; ++line) {
        uint dy_at = (half_index * TILE_K + own_k()) * DY_ROW + line * QUADS;
        uint x_at = ((half_index * LINES + line) * KERNEL_R * TILE_C + own_c()) * X_ROW;
        vec4 window[KERNEL_R * THREAD_C * REACH]; // [row][input channel][vector]
        [[unroll]] for (uint i = 0; i < KERNEL_R * THREAD_C * KEPT; ++i) {
            uint row = i / KEPT / THREAD_C * TILE_C + i / KEPT % THREAD_C * C_APART;
            window[i / KEPT * REACH + i % KEPT] = x_tile[x_at + row * X_ROW + i % KEPT];
        }
        [[unroll]] for (uint quad = 0; quad < QUADS; ++quad) {
            [[unroll]] for (uint i = 0; i < KERNEL_R * THREAD_C * (REACH - KEPT); ++i) {
                uint at = i / (REACH - KEPT);
                uint vector = KEPT + i % (REACH - KEPT);
                uint row = at / THREAD_C * TILE_C + at % THREAD_C * C_APART;
                window[at * REACH + vector] = x_tile[x_at + row * X_ROW + quad * STRIDE + vector];
            }
            [[unroll]] for (uint k = 0; k < THREAD_K; ++k) {
                vec4 gradients = dy_tile[dy_at + k * K_APART * DY_ROW + quad];
                [[unroll]] for (uint i = 0; i < 4 * THREAD_C * TAPS; ++i) {
                    uint pixel = i / (THREAD_C * TAPS);
                    uint c = i / TAPS % THREAD_C;
                    uint column = pixel * STRIDE + i % KERNEL_S * DILATION;
                    uint row = i / KERNEL_S % KERNEL_R * THREAD_C + c;
                    uint at = k * THREAD_C * TAPS + i % (THREAD_C * TAPS);
                    if (4 * quad + pixel < COLUMNS) {
                        float sum = fma(gradients[pixel], window[row * REACH + column / 4][column % 4], sums[at]);
                        // What lies beyond dy adds nothing, not even zero times infinity.
                        bool exists = WHOLE_SEGMENTS || 4 * quad + pixel < columns_left;
                        sums[at] = exists ? sum : sums[at];
                    }
                }
            }
            [[unroll]] for (uint i = 0; i < KERNEL_R * THREAD_C * KEPT; ++i) {
                uint at = i / KEPT * REACH + i % KEPT;
                window[at] = window[at + STRIDE];
            }
        }
    }
}

void sum_bias(uint half_index) {
    [[unroll]] for (uint i = 0; i < LINES * QUADS; ++i) {
        vec4 gradients = dy_tile[(half_index * TILE_K + gl_LocalInvocationIndex) * DY_ROW + i];
        [[unroll]] for (uint pixel = 0; pixel < 4; ++pixel) {
            if (4 * (i % QUADS) + pixel < COLUMNS) {
                bias_sum += gradients[pixel];
            }
        }
    }
}

void promote() {
    [[unroll]] for (uint i = 0; i < RESULTS; ++i) {
        totals[i] += sums[i];
        sums[i] = 0;
    }
    bias_total += bias_sum;
    bias_sum = 0;
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
    first_c = tile / tiles_k % tiles_c * TILE_C;
    group = tile / tiles_k / tiles_c % pc.groups;
    uint split = tile / tiles_k / tiles_c / pc.groups;
    bool sums_bias = pc.has_bias != 0 && first_c == 0 && gl_LocalInvocationIndex < TILE_K;

    uint first = split * SPLIT_BLOCKS;
    uint blocks = min(SPLIT_BLOCKS, pc.N * lines_of_blocks() * segments() - first);
    next_segment = first % segments();
    next_line = first / segments() % lines_of_blocks() * LINES;
    next_image = first / segments() / lines_of_blocks();
    [[unroll]] for (uint i = 0; i < RESULTS; ++i) {
        sums[i] = 0;
        totals[i] = 0;
    }
    uint segment = next_segment;
    fetch();
    place(0);
    barrier();
    for (uint block = 0; block < blocks; ++block) {
        bool more = block + 1 < blocks;
        uint columns_left = pc.Q - segment * COLUMNS;
        segment = next_segment;
        if (more) {
            fetch();
        }
        multiply_block(block % 2, columns_left);
        if (sums_bias) {
            sum_bias(block % 2);
        }
        if ((block + 1) % PROMOTE == 0) {
            promote();
        }
        if (more) {
            place((block + 1) % 2);
        }
        barrier();
    }
    promote();

    uint slice = FIRST_SPLIT + split;
    [[unroll]] for (uint i = 0; i < RESULTS; ++i) {
        uint k = first_k + own_k() + i / (THREAD_C * TAPS) * K_APART;
        uint c = first_c + own_c() + i / TAPS % THREAD_C * C_APART;
        if (k < k_count && c < c_count) {
            WEIGHT(((slice * pc.K + group * k_count + k) * c_count + c) * TAPS + i % TAPS) = totals[i];
        }
    }
    uint k = first_k + gl_LocalInvocationIndex;
    if (sums_bias && k < k_count) {
        BIAS(slice * pc.K + group * k_count + k) = bias_total;
    }
}
