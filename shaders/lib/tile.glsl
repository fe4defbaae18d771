// The tile engine: one workgroup multiplies A (TILE_M × reduction) by B (reduction × TILE_N), each thread
// keeping THREAD_M × THREAD_N results in registers.
//
// Where threads stack along m (LANES_N < THREADS), both blocks are shared: while one block of BLOCK reduction
// steps is multiplied, the next is already on its way from global memory; shared memory is double-buffered, so
// there is one barrier a block.
//
// Where each thread has columns of B for itself (LANES_N = THREADS), B goes straight to registers and only A is
// shared. That is for few rows.
//
// Where moreover SUBGROUP is not 0, it is the device's subgroup size, and A is not in shared memory either: each
// lane holds vectors of four rows (THREAD_M is a multiple of 4 · SUBGROUP, THREAD_N = 4) that the others read by
// shuffling. That is for software drivers, to which a barrier is a switch of threads, and a load from memory a loop
// over the lanes, whose rounds cost the same for a vector of four as for one element; so what B is made of comes packed
// by channels of four (pack-channels.glsl). A shuffle is one instruction there; a broadcast first searches for an
// active lane.
//
// Sums run in two levels: 64 products are chained before they are added to a second total. The FP32
// contract allows 8·√K·2⁻²⁴·S; a chain of 64 and K/64 additions round at most 64 + K/64 ≤ 8·√K times up to
// K = 250,000, for every finite input. One long chain would break it.
//
// A kernel includes this file, defines `void fetch(uint block)`, which fills a_next and b_next for the
// positions that a_row/a_m and b_row/b_n name, and calls `multiply(blocks)`.
//
// The tile's sizes are #defines (permutations.txt), not specialization constants: shaderc then unrolls the
// loops below itself. Some drivers never do (llvmpipe), and there a loop over registers runs from memory.
// For the same reason no unrolled loop here holds another one. Sizes are powers of two; THREAD_M is a multiple
// of four, and so is THREAD_N where B is shared.

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

#if LANES_N == THREADS
#define OWN_COLUMNS
#endif
#if SUBGROUP > 0
#define ROWS_IN_LANES
#endif

const uint PROMOTE = 64 / BLOCK; // blocks
const uint TILE_M = THREADS / LANES_N * THREAD_M;
const uint TILE_N = LANES_N * THREAD_N;
const uint A_LOADS = (BLOCK * TILE_M + THREADS - 1) / THREADS; // a small A has less than one for each thread
const uint B_LOADS = BLOCK * TILE_N / THREADS;
const bool A_IS_EVEN = BLOCK * TILE_M % THREADS == 0;

#ifdef ROWS_IN_LANES
const uint VECTORS = THREAD_M / (4 * SUBGROUP);
vec4 a_next[BLOCK * VECTORS]; // of each step: four rows from 4 · a_vector(i) on
uint a_step(uint i) { return i / VECTORS; }
uint a_vector(uint i) { return i % VECTORS * SUBGROUP + gl_SubgroupInvocationID; }
vec4 b_next[BLOCK]; // of each step: this thread's columns
#else
// Rows of shared memory are padded by one vec4, so that threads storing down a column hit different banks.
const uint A_ROW = TILE_M / 4 + 1;
#ifdef OWN_COLUMNS
shared vec4 a_tile[BLOCK * A_ROW];
#else
const uint B_ROW = TILE_N / 4 + 1;
shared vec4 a_tile[2 * BLOCK * A_ROW];
shared vec4 b_tile[2 * BLOCK * B_ROW];
#endif
float a_next[A_LOADS];
float b_next[B_LOADS];
#endif
float totals[THREAD_M * THREAD_N]; // row by row; after `multiply`, the results

// A thread's results are THREAD_M rows of THREAD_N columns; these say which ones of the tile.
#if defined(ROWS_IN_LANES)
uint result_m(uint row) { return row; }
uint result_n(uint column) { return gl_LocalInvocationIndex * 4 + column; }
#elif defined(OWN_COLUMNS)
uint result_m(uint row) { return row; }
uint result_n(uint column) { return column * THREADS + gl_LocalInvocationIndex; }
#else
uint lane_m() { return gl_LocalInvocationIndex / LANES_N; }
uint lane_n() { return gl_LocalInvocationIndex % LANES_N; }
uint result_m(uint row) { return lane_m() * THREAD_M + row; }
uint result_n(uint column) { return (column / 4 * LANES_N + lane_n()) * 4 + column % 4; }
#endif

// Which element of the A and B blocks this thread's i-th load is. Neighbouring threads run along the axis
// that is contiguous in global memory: the reduction for weight gradients, m and n otherwise. A thread with
// columns of its own loads those, step by step: b_row(i) is i / THREAD_N and b_n(i) is result_n(i % THREAD_N).
#if defined(ROWS_IN_LANES)
uint b_n(uint i) { return result_n(i); }
#elif defined(REDUCTION_CONTIGUOUS) && !defined(OWN_COLUMNS)
uint a_row(uint i) { return (gl_LocalInvocationIndex + i * THREADS) % BLOCK; }
uint a_m(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / BLOCK; }
uint b_row(uint i) { return (gl_LocalInvocationIndex + i * THREADS) % BLOCK; }
uint b_n(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / BLOCK; }
#else
uint a_row(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / TILE_M; }
uint a_m(uint i) { return (gl_LocalInvocationIndex + i * THREADS) % TILE_M; }
uint b_row(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / TILE_N; }
uint b_n(uint i) { return (gl_LocalInvocationIndex + i * THREADS) % TILE_N; }
#endif

void fetch(uint block);

#ifdef ROWS_IN_LANES
#if SUBGROUP != 8
#error "the lanes are written out for subgroups of 8"
#endif
#define MULTIPLY_LANE(lane) \
    sums[first + lane * 4] = fma(vec4(subgroupShuffle(a, lane)), b, sums[first + lane * 4]);

void multiply(uint blocks) {
    vec4 row_totals[THREAD_M];
    vec4 sums[THREAD_M];
    [[unroll]] for (uint row = 0; row < THREAD_M; ++row) {
        row_totals[row] = vec4(0);
    }
    for (uint chain = 0; chain < blocks; chain += PROMOTE) {
        [[unroll]] for (uint row = 0; row < THREAD_M; ++row) {
            sums[row] = vec4(0);
        }
        uint chain_end = min(chain + PROMOTE, blocks);
        for (uint block = chain; block < chain_end; ++block) {
            fetch(block);
            [[unroll]] for (uint i = 0; i < BLOCK * VECTORS * 4; ++i) {
                vec4 b = b_next[a_step(i / 4)];
                float a = a_next[i / 4][i % 4];
                uint first = i / 4 % VECTORS * SUBGROUP * 4 + i % 4; // lane 0's row
                MULTIPLY_LANE(0)
                MULTIPLY_LANE(1)
                MULTIPLY_LANE(2)
                MULTIPLY_LANE(3)
                MULTIPLY_LANE(4)
                MULTIPLY_LANE(5)
                MULTIPLY_LANE(6)
                MULTIPLY_LANE(7)
            }
        }
        [[unroll]] for (uint row = 0; row < THREAD_M; ++row) {
            row_totals[row] += sums[row];
        }
    }
    [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N; ++at) {
        totals[at] = row_totals[at / 4][at % 4];
    }
}

#else

void store_a(uint first_row) {
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint m = a_m(i);
        if (A_IS_EVEN || gl_LocalInvocationIndex + i * THREADS < BLOCK * TILE_M) {
            a_tile[(first_row + a_row(i)) * A_ROW + m / 4][m % 4] = a_next[i];
        }
    }
}

#ifdef OWN_COLUMNS

void multiply(uint blocks) {
    float sums[THREAD_M * THREAD_N];
    [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N; ++at) {
        totals[at] = 0;
    }
    for (uint chain = 0; chain < blocks; chain += PROMOTE) {
        [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N; ++at) {
            sums[at] = 0;
        }
        uint chain_end = min(chain + PROMOTE, blocks);
        for (uint block = chain; block < chain_end; ++block) {
            fetch(block);
            barrier(); // until everyone is done with the block before
            store_a(0);
            barrier();
            vec4 a[BLOCK * THREAD_M / 4];
            [[unroll]] for (uint i = 0; i < BLOCK * THREAD_M / 4; ++i) {
                a[i] = a_tile[i / (THREAD_M / 4) * A_ROW + i % (THREAD_M / 4)];
            }
            [[unroll]] for (uint i = 0; i < BLOCK * THREAD_M * THREAD_N; ++i) {
                uint step = i / (THREAD_M * THREAD_N);
                uint at = i % (THREAD_M * THREAD_N);
                uint row = at / THREAD_N;
                float value = a[step * (THREAD_M / 4) + row / 4][row % 4];
                sums[at] = fma(value, b_next[step * THREAD_N + at % THREAD_N], sums[at]);
            }
        }
        [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N; ++at) {
            totals[at] += sums[at];
        }
    }
}

#else

float sums[THREAD_M * THREAD_N];

void store_fetched(uint buffer_index) {
    store_a(buffer_index * BLOCK);
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint n = b_n(i);
        b_tile[(buffer_index * BLOCK + b_row(i)) * B_ROW + n / 4][n % 4] = b_next[i];
    }
}

void multiply_block(uint buffer_index) {
    for (uint step = 0; step < BLOCK; ++step) {
        uint row = buffer_index * BLOCK + step;
        vec4 a[THREAD_M / 4];
        vec4 b[THREAD_N / 4];
        [[unroll]] for (uint i = 0; i < THREAD_M / 4; ++i) {
            a[i] = a_tile[row * A_ROW + lane_m() * (THREAD_M / 4) + i];
        }
        [[unroll]] for (uint j = 0; j < THREAD_N / 4; ++j) {
            b[j] = b_tile[row * B_ROW + j * LANES_N + lane_n()];
        }
        [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N; ++at) {
            uint i = at / THREAD_N;
            uint j = at % THREAD_N;
            sums[at] = fma(a[i / 4][i % 4], b[j / 4][j % 4], sums[at]);
        }
    }
}

void promote() {
    [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N; ++at) {
        totals[at] += sums[at];
        sums[at] = 0;
    }
}

void multiply(uint blocks) {
    [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N; ++at) {
        totals[at] = 0;
        sums[at] = 0;
    }
    fetch(0);
    store_fetched(0);
    barrier();
    for (uint block = 0; block < blocks; ++block) {
        bool more = block + 1 < blocks;
        if (more) {
            fetch(block + 1);
        }
        multiply_block(block % 2);
        if ((block + 1) % PROMOTE == 0) {
            promote();
        }
        if (more) {
            store_fetched((block + 1) % 2);
        }
        barrier();
    }
    promote();
}

#endif
#endif // ROWS_IN_LANES
