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
#define SOURCE_AT(i) INPUT_AT(i)
#define SOURCE_BASE INPUT_BASE
#define SOURCE_VECTOR(i) INPUT_VECTOR(i)
#define SOURCE_PLACE(i) INPUT_PLACE(i)
#define SOURCE_FROM(place, i) INPUT_FROM(place, i)
#define SOURCE_VECTOR_FROM(place, i) INPUT_VECTOR_FROM(place, i)
#define RESULT(i) OUTPUT(i)
#define RESULT_VECTOR(i) OUTPUT_VECTOR(i)
#define SOURCE_VECTORS VECTORS_INPUT
#define RESULT_VECTORS VECTORS_OUTPUT
#define SOURCE_CHANNELS pc.C
#define SOURCE_HEIGHT pc.H
#define SOURCE_WIDTH pc.W
#define RESULT_CHANNELS pc.K
#define RESULT_HEIGHT pc.P
#define RESULT_WIDTH pc.Q
#include "lib/result.glsl"
