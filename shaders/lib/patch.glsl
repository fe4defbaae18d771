// How 32 threads side by side, as many as a subgroup of many devices, lie in a patch of 4 × 8: together they read 4
// and 8 neighbouring vectors of shared memory, and each value serves 8 or 4 of them. Threads 2i and 2i + 1 read the
// same vector along n, and threads i and i + 2 (of every four) along m: NVIDIA's hardware, which serves vectors of four
// in four rounds, then needs two.

uint patch_index() { return gl_LocalInvocationIndex / 32; }
uint patch_m() { return gl_LocalInvocationIndex / 4 % 2 * 2 + gl_LocalInvocationIndex % 2; }
uint patch_n() { return gl_LocalInvocationIndex / 8 % 4 * 2 + gl_LocalInvocationIndex / 2 % 2; }
