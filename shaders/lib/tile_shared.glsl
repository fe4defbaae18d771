// The tile engine through shared memory: while one block of BLOCK reduction steps is multiplied, the next is already
// on its way from global memory to registers. It is stored to shared memory in the next round of the loop, where no
// compiler moves the loads to; shared memory is double-buffered, so there is one barrier a round.
//
// A kernel includes this file and defines `void fetch()`, which loads the next block to registers, and
// `void place(uint first_row)`, which stores them to a_tile and b_tile from row `first_row` on, and `bool
// takes_block()`, whether the block placed last belongs to this thread's results; then it calls `multiply(blocks)`, and
// stores `totals`, or brings them to shared memory by `stage(first_row)` and stores what it finds there.

#include "lib/patch.glsl"
#include "lib/unpack.glsl"

#ifdef REDUCTION_CONTIGUOUS
#define ROW_PADDING 1 // threads store down a column; a vector more a row, and they hit different banks
#else
#define ROW_PADDING 0
#endif

const uint A_ROW = TILE_M / 4 + ROW_PADDING;
const uint B_ROW = TILE_N / 4 + ROW_PADDING;
shared vec4 a_tile[2 * BLOCK * A_ROW];
shared vec4 b_tile[2 * BLOCK * B_ROW];
float sums[RESULTS];

void fetch();
void place(uint first_row);
bool takes_block();

const uint PATCHES_N = LANES_N / 8;

// Which vectors of a row this thread multiplies.
uint a_vector(uint i) { return patch_index() / PATCHES_N * THREAD_M + i * 4 + patch_m(); }
uint b_vector(uint j) { return patch_index() % PATCHES_N * (THREAD_N * 2) + j * 8 + patch_n(); }

// A thread's results are THREAD_M rows of THREAD_N columns; these say which ones of the tile.
uint result_m(uint row) { return a_vector(row / 4) * 4 + row % 4; }
uint result_n(uint column) { return b_vector(column / 4) * 4 + column % 4; }

void multiply_block(uint first_row) {
    [[unroll]] for (uint step = 0; step < BLOCK; ++step) {
        float a[THREAD_M];
        float b[THREAD_N];
        [[unroll]] for (uint i = 0; i < THREAD_M; i += 4) {
            UNPACK(a_tile[(first_row + step) * A_ROW + a_vector(i / 4)], a, i)
        }
        [[unroll]] for (uint j = 0; j < THREAD_N; j += 4) {
            UNPACK(b_tile[(first_row + step) * B_ROW + b_vector(j / 4)], b, j)
        }
        [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
            sums[at] = fma(a[at / THREAD_N], b[at % THREAD_N], sums[at]);
        }
    }
}

void multiply(uint blocks) {
    [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
        totals[at] = 0;
    }
    if (blocks > 0) {
        fetch();
    }
    uint chained = chain_of(blocks * BLOCK) / BLOCK;
    for (uint first = 0; first < blocks; first += chained) {
        [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
            sums[at] = 0;
        }
        uint end = min(first + chained, blocks);
        for (uint block = first; block < end; ++block) {
            place(block % 2 * BLOCK);
            barrier();
            if (block + 1 < blocks) {
                fetch();
            }
            if (takes_block()) {
                multiply_block(block % 2 * BLOCK);
            }
        }
        [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
            totals[at] += sums[at];
        }
    }
}

// Results that are stored one by one go through shared memory, so that neighbouring threads store neighbours, in a loop
// that is not unrolled: drivers take longer for the stores of so many registers than for all products. STAGED_ROWS rows
// of the tile are there at once, those of neighbouring patches along n.
const uint STAGED_ROWS = 4 * THREAD_M;

// Brings those from `first_row` on to shared memory, for all threads at once.
void stage(uint first_row) {
    barrier(); // until everyone is done with what was there
    if (result_m(0) / STAGED_ROWS == first_row / STAGED_ROWS) {
        [[unroll]] for (uint at = 0; at < RESULTS; at += 4) {
            vec4 four = vec4(totals[at], totals[at + 1], totals[at + 2], totals[at + 3]);
            b_tile[(result_m(at / THREAD_N) - first_row) * B_ROW + b_vector(at % THREAD_N / 4)] = four;
        }
    }
    barrier();
}

// The result in a column of the tile and that row of those.
float staged(uint row, uint column) { return b_tile[row * B_ROW + column / 4][column % 4]; }

// Those that this thread stores: in its column, every STORE_STEP-th row from there on.
const uint STORE_STEP = THREADS / TILE_N;
uint store_row() { return gl_LocalInvocationIndex / TILE_N; }
uint store_column() { return gl_LocalInvocationIndex % TILE_N; }
