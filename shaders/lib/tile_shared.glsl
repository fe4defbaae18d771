// The tile engine through shared memory: while one block of BLOCK reduction steps is multiplied, the next is already
// on its way from global memory to registers. It is stored to shared memory in the next round of the loop, where no
// compiler moves the loads to; shared memory is double-buffered, so there is one barrier a round.
//
// A kernel includes this file and defines `void fetch()`, which loads the next block to registers, and
// `void place(uint first_row)`, which stores them to a_tile and b_tile from row `first_row` on, and `bool
// takes_block()`, whether the block placed last belongs to this thread's results; then it calls `multiply(blocks)`.

#include "lib/patch.glsl"

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
        vec4 a[THREAD_M / 4];
        vec4 b[THREAD_N / 4];
        [[unroll]] for (uint i = 0; i < THREAD_M / 4; ++i) {
            a[i] = a_tile[(first_row + step) * A_ROW + a_vector(i)];
        }
        [[unroll]] for (uint j = 0; j < THREAD_N / 4; ++j) {
            b[j] = b_tile[(first_row + step) * B_ROW + b_vector(j)];
        }
        [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
            uint i = at / THREAD_N;
            uint j = at % THREAD_N;
            sums[at] = fma(a[i / 4][i % 4], b[j / 4][j % 4], sums[at]);
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
