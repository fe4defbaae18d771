// The tensors of a forward pass.

#define INPUT_ACCESS readonly
#define INPUT_VECTORS readonly
#define WEIGHT_ACCESS readonly
#define WEIGHT_VECTORS readonly
#define BIAS_ACCESS readonly
#define OUTPUT_ACCESS
#define OUTPUT_VECTORS
#include "lib/problem.glsl"

#define SOURCE(i) INPUT(i)
#define SOURCE_VECTOR(i) INPUT_VECTOR(i)
#define RESULT(i) OUTPUT(i)
#define RESULT_VECTOR(i) OUTPUT_VECTOR(i)
#include "lib/result.glsl"
