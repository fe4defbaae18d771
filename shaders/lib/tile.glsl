// The tile engine: one workgroup multiplies A (TILE_M × reduction) by B (reduction × TILE_N), each thread
// keeping THREAD_M × THREAD_N results in registers.
//
// Where threads stack along m (LANES_N < THREADS), both operands pass through shared memory: tile_shared.glsl.
// Where each thread has columns of B for itself (LANES_N = THREADS), B goes straight to registers:
// tile_own_columns.glsl. That is for few rows, and for software drivers.
//
// The tile's sizes are #defines (permutations.txt), not specialization constants: shaderc then unrolls the
// loops itself. Some drivers never do (llvmpipe), and there a loop over registers runs from memory. Sizes are
// powers of two; THREAD_M is a multiple of four, and so is THREAD_N where B is shared; there, THREAD_M is at most half of
// BLOCK, and TILE_N at most THREADS.

#include "lib/chain.glsl"

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

const uint TILE_M = THREADS / LANES_N * THREAD_M;
const uint TILE_N = LANES_N * THREAD_N;
const uint RESULTS = THREAD_M * THREAD_N; // of a thread

float totals[RESULTS]; // row by row; after `multiply`, the results

#if LANES_N == THREADS
#define OWN_COLUMNS
#include "lib/tile_own_columns.glsl"
#else
#include "lib/tile_shared.glsl"
#endif
