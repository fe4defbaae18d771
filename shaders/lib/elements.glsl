// Kernels with one thread for each element of their result.

layout(local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

const uint NO_ELEMENT = 0xFFFFFFFFu;

// May lie beyond the last element; each kernel compares.
uint element_index() {
    uint tile = tile_index();
    return tile < pc.tile_end ? tile * THREADS + gl_LocalInvocationIndex : NO_ELEMENT;
}
