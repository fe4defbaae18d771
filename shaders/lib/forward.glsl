// The tensors of a forward pass.

#define INPUT_ACCESS readonly
#define INPUT_VECTORS readonly
#define WEIGHT_ACCESS readonly
#define WEIGHT_VECTORS readonly
#define BIAS_ACCESS readonly
#define OUTPUT_ACCESS
#include "lib/problem.glsl"

#define SOURCE(i) INPUT(i)
#define SOURCE_VECTOR(i) INPUT_VECTOR(i)
#define RESULT(i) OUTPUT(i)
#include "lib/result.glsl"
