// The tensors of an input gradient, and how its results are written.

#define INPUT_ACCESS
#define WEIGHT_ACCESS readonly
#define WEIGHT_VECTORS readonly
#define OUTPUT_ACCESS readonly
#define OUTPUT_VECTORS readonly
#include "lib/problem.glsl"

#define BACKWARD_INPUT
#define SOURCE(i) OUTPUT(i)
#define SOURCE_VECTOR(i) OUTPUT_VECTOR(i)

void store_result(uint at, uint channel, float value) {
    INPUT(at) = (pc.flags & FLAG_ACCUMULATE) != 0 ? INPUT(at) + value : value;
}
