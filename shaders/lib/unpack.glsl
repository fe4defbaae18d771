// A vector's components as elements of an array of floats. Drivers take less time to compile these than components named
// by an index: spirv-opt has made values of them before loops are unrolled, and of those it never does.
#define UNPACK(vector, array, first) { \
    vec4 four = vector; \
    array[first] = four.x; \
    array[(first) + 1] = four.y; \
    array[(first) + 2] = four.z; \
    array[(first) + 3] = four.w; \
}
