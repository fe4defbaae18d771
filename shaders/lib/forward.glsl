// The tensors of a forward pass.

#define INPUT_ACCESS readonly
#define WEIGHT_ACCESS readonly
#define WEIGHT_VECTORS
#define BIAS_ACCESS readonly
#define OUTPUT_ACCESS
#include "lib/problem.glsl"

#define SOURCE(i) INPUT(i)
#define RESULT(i) OUTPUT(i)
#include "lib/result.glsl"
