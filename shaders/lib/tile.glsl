// The tile engine: one workgroup multiplies A (TILE_M × reduction) by B (reduction × TILE_N) out of shared
// memory, each thread keeping THREAD_M × THREAD_N results in registers. While one block of BLOCK reduction
// steps is multiplied, the next is already on its way from global memory; shared memory is double-buffered,
// so there is one barrier a block.
//
// Sums run in two levels: 64 products are chained before they are added to a second total. The FP32 contract
// allows 8·√K·2⁻²⁴·S; a chain of 64 and K/64 additions round at most 64 + K/64 ≤ 8·√K times up to K = 250,000,
// for every finite input. One long chain would break it.
//
// A kernel includes this file, defines `void fetch(uint block)`, which fills a_next and b_next for the
// positions that a_row/a_m and b_row/b_n name, and calls `multiply(blocks)`.
//
// The tile's sizes are #defines (permutations.txt), not specialization constants: shaderc then unrolls the
// loops below itself. Some drivers never do (llvmpipe), and there a loop over registers runs from memory.
// For the same reason no unrolled loop here holds another one. Sizes are powers of two; THREAD_M and
// THREAD_N are multiples of four.

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

const uint PROMOTE = 64 / BLOCK;
const uint TILE_M = THREADS / LANES_N * THREAD_M;
const uint TILE_N = LANES_N * THREAD_N;
const uint A_LOADS = (BLOCK * TILE_M + THREADS - 1) / THREADS; // a small A has less than one for each thread
const uint B_LOADS = BLOCK * TILE_N / THREADS;
const bool A_IS_EVEN = BLOCK * TILE_M % THREADS == 0;

// Rows of shared memory are padded by one vec4, so that threads storing down a column hit different banks.
const uint A_ROW = TILE_M / 4 + 1;
const uint B_ROW = TILE_N / 4 + 1;
shared vec4 a_tile[2 * BLOCK * A_ROW];
shared vec4 b_tile[2 * BLOCK * B_ROW];

float a_next[A_LOADS];
float b_next[B_LOADS];
vec4 sums[THREAD_M * THREAD_N / 4];
vec4 totals[THREAD_M * THREAD_N / 4];

// Threads that share a row of A read it uniformly; saying so outright lets a driver see it.
uint lane_m() {
    return LANES_N == THREADS ? 0 : gl_LocalInvocationIndex / LANES_N;
}

uint lane_n() {
    return LANES_N == THREADS ? gl_LocalInvocationIndex : gl_LocalInvocationIndex % LANES_N;
}

// A thread's results are THREAD_M rows of THREAD_N columns; these say which ones of the tile.
uint result_m(uint row) {
    return lane_m() * THREAD_M + row;
}

uint result_n(uint column) {
    return (column / 4 * LANES_N + lane_n()) * 4 + column % 4;
}

// Which element of the A and B blocks this thread's i-th load is. Neighbouring threads run along the axis
// that is contiguous in global memory: the reduction for weight gradients, m and n otherwise.
#ifdef REDUCTION_CONTIGUOUS
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

void store_fetched(uint buffer_index) {
    [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
        uint m = a_m(i);
        if (A_IS_EVEN || gl_LocalInvocationIndex + i * THREADS < BLOCK * TILE_M) {
            a_tile[(buffer_index * BLOCK + a_row(i)) * A_ROW + m / 4][m % 4] = a_next[i];
        }
    }
    [[unroll]] for (uint i = 0; i < B_LOADS; ++i) {
        uint n = b_n(i);
        b_tile[(buffer_index * BLOCK + b_row(i)) * B_ROW + n / 4][n % 4] = b_next[i];
    }
}

void multiply_block(uint buffer_index) {
    for (uint step = 0; step < BLOCK; ++step) {
        vec4 a[THREAD_M / 4];
        vec4 b[THREAD_N / 4];
        [[unroll]] for (uint i = 0; i < THREAD_M / 4; ++i) {
            a[i] = a_tile[(buffer_index * BLOCK + step) * A_ROW + lane_m() * (THREAD_M / 4) + i];
        }
        [[unroll]] for (uint j = 0; j < THREAD_N / 4; ++j) {
            b[j] = b_tile[(buffer_index * BLOCK + step) * B_ROW + j * LANES_N + lane_n()];
        }
        [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N / 4; ++at) {
            uint i = at / (THREAD_N / 4);
            sums[at] = fma(vec4(a[i / 4][i % 4]), b[at % (THREAD_N / 4)], sums[at]);
        }
    }
}

void promote() {
    [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N / 4; ++at) {
        totals[at] += sums[at];
        sums[at] = vec4(0);
    }
}

// After `multiply`: the result of a row and a column.
float result(uint row, uint column) {
    return totals[row * (THREAD_N / 4) + column / 4][column % 4];
}

// Leaves the finished sums in `totals`.
void multiply(uint blocks) {
    [[unroll]] for (uint at = 0; at < THREAD_M * THREAD_N / 4; ++at) {
        totals[at] = vec4(0);
        sums[at] = vec4(0);
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
