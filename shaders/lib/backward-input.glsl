// The tensors of an input gradient.

#define INPUT_ACCESS
#define INPUT_VECTORS
#define WEIGHT_ACCESS readonly
#define WEIGHT_VECTORS readonly
#define BIAS_ACCESS readonly
#define OUTPUT_ACCESS readonly
#define OUTPUT_VECTORS readonly
#include "lib/problem.glsl"

#define BACKWARD_INPUT
#define SOURCE(i) OUTPUT(i)
#define SOURCE_VECTOR(i) OUTPUT_VECTOR(i)
#define RESULT(i) INPUT(i)
#define RESULT_VECTOR(i) INPUT_VECTOR(i)
#include "lib/result.glsl"
