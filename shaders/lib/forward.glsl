// The tensors of a forward pass, and how its results are written.

#define INPUT_ACCESS readonly
#define INPUT_VECTORS readonly
#define WEIGHT_ACCESS readonly
#define WEIGHT_VECTORS readonly
#define BIAS_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "lib/problem.glsl"

#define SOURCE(i) INPUT(i)
#define SOURCE_VECTOR(i) INPUT_VECTOR(i)

void store_result(uint at, uint channel, float value) {
    OUTPUT(at) = pc.has_bias != 0 ? value + BIAS(channel) : value;
}
