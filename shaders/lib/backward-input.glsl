// The tensors of an input gradient.

#define INPUT_ACCESS
#define WEIGHT_ACCESS readonly
#define WEIGHT_VECTORS
#define BIAS_ACCESS readonly
#define OUTPUT_ACCESS readonly
#include "lib/problem.glsl"

#define BACKWARD_INPUT
#define SOURCE(i) OUTPUT(i)
#define RESULT(i) INPUT(i)
#include "lib/result.glsl"
