// The tile engine where each thread has columns of B for itself: B goes straight to registers and only A is
// shared. That is for few rows.
//
// Where moreover SUBGROUP is not 0, it is the device's subgroup size, and A is not in shared memory either: each
// lane holds vectors of four rows (THREAD_M is a multiple of 4 · SUBGROUP, THREAD_N = 4) that the others read by
// shuffling. That is for software drivers, to which a barrier is a switch of threads, and a load from memory a loop
// over the lanes and a vector's elements; so what B is made of comes packed by channels of four (pack-channels.glsl),
// and two floats are loaded as one (problem.glsl). A shuffle is one instruction there; a broadcast first searches for an
// active lane.
//
// A kernel includes this file, defines `void fetch()`, which fills a_next and b_next with the next block, for the
// positions that a_row/a_m or a_step/a_vector and result_n name, and calls `multiply(blocks)`.
//
// No unrolled loop here holds another one: some drivers run the inner one from memory.

#if SUBGROUP > 0
#define ROWS_IN_LANES
#endif

// A loop over a thread's results where they are stored. A software driver keeps them in memory anyway, and takes seconds
// to compile what is unrolled.
#ifdef ROWS_IN_LANES
#define EACH_RESULT for
#else
#define EACH_RESULT [[unroll]] for
#endif

void fetch();

uint result_m(uint row) { return row; }

#ifdef ROWS_IN_LANES
#if SUBGROUP != 8
#error "the lanes are written out for subgroups of 8"
#endif

const uint A_VECTORS = THREAD_M / (4 * SUBGROUP);
vec4 a_next[BLOCK * A_VECTORS]; // of each step: four rows from 4 · a_vector(i) on
uint a_step(uint i) { return i / A_VECTORS; }
uint a_vector(uint i) { return i % A_VECTORS * SUBGROUP + gl_SubgroupInvocationID; }
vec4 b_next[BLOCK]; // of each step: this thread's columns
uint result_n(uint column) { return gl_LocalInvocationIndex * 4 + column; }

#define MULTIPLY_LANE(lane) \
    sums[first + lane * 4] = fma(vec4(subgroupShuffle(a, lane)), b, sums[first + lane * 4]);

void multiply(uint blocks) {
    vec4 row_totals[THREAD_M];
    vec4 sums[THREAD_M];
    [[unroll]] for (uint row = 0; row < THREAD_M; ++row) {
        row_totals[row] = vec4(0);
    }
    uint chained = chain_of(blocks * BLOCK) / BLOCK;
    for (uint chain = 0; chain < blocks; chain += chained) {
        [[unroll]] for (uint row = 0; row < THREAD_M; ++row) {
            sums[row] = vec4(0);
        }
        uint chain_end = min(chain + chained, blocks);
        for (uint block = chain; block < chain_end; ++block) {
            fetch();
            [[unroll]] for (uint i = 0; i < BLOCK * A_VECTORS * 4; ++i) {
                vec4 b = b_next[a_step(i / 4)];
                float a = a_next[i / 4][i % 4];
                uint first = i / 4 % A_VECTORS * SUBGROUP * 4 + i % 4; // lane 0's row
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
    [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
        totals[at] = row_totals[at / 4][at % 4];
    }
}

#else

const uint A_LOADS = (BLOCK * TILE_M + THREADS - 1) / THREADS; // a small A has less than one for each thread
const bool A_IS_EVEN = BLOCK * TILE_M % THREADS == 0;
shared vec4 a_tile[BLOCK * TILE_M / 4];
float a_next[A_LOADS];
uint a_row(uint i) { return (gl_LocalInvocationIndex + i * THREADS) / TILE_M; }
uint a_m(uint i) { return (gl_LocalInvocationIndex + i * THREADS) % TILE_M; }
float b_next[BLOCK * THREAD_N]; // of each step: this thread's columns
uint result_n(uint column) { return column * THREADS + gl_LocalInvocationIndex; }

void multiply(uint blocks) {
    float sums[RESULTS];
    [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
        totals[at] = 0;
    }
    uint chained = chain_of(blocks * BLOCK) / BLOCK;
    for (uint chain = 0; chain < blocks; chain += chained) {
        [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
            sums[at] = 0;
        }
        uint chain_end = min(chain + chained, blocks);
        for (uint block = chain; block < chain_end; ++block) {
            fetch();
            barrier(); // until everyone is done with the block before
            [[unroll]] for (uint i = 0; i < A_LOADS; ++i) {
                uint m = a_m(i);
                if (A_IS_EVEN || gl_LocalInvocationIndex + i * THREADS < BLOCK * TILE_M) {
                    a_tile[a_row(i) * (TILE_M / 4) + m / 4][m % 4] = a_next[i];
                }
            }
            barrier();
            vec4 a[BLOCK * THREAD_M / 4];
            [[unroll]] for (uint i = 0; i < BLOCK * THREAD_M / 4; ++i) {
                a[i] = a_tile[i];
            }
            [[unroll]] for (uint i = 0; i < BLOCK * RESULTS; ++i) {
                uint step = i / RESULTS;
                uint at = i % RESULTS;
                uint row = at / THREAD_N;
                float value = a[step * (THREAD_M / 4) + row / 4][row % 4];
                sums[at] = fma(value, b_next[step * THREAD_N + at % THREAD_N], sums[at]);
            }
        }
        [[unroll]] for (uint at = 0; at < RESULTS; ++at) {
            totals[at] += sums[at];
        }
    }
}

#endif
