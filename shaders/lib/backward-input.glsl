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
#define SOURCE_AT(i) OUTPUT_AT(i)
#define SOURCE_BASE OUTPUT_BASE
#define SOURCE_VECTOR(i) OUTPUT_VECTOR(i)
#define SOURCE_PLACE(i) OUTPUT_PLACE(i)
#define SOURCE_FROM(place, i) OUTPUT_FROM(place, i)
#define SOURCE_VECTOR_FROM(place, i) OUTPUT_VECTOR_FROM(place, i)
#define RESULT(i) INPUT(i)
#define RESULT_VECTOR(i) INPUT_VECTOR(i)
#define SOURCE_VECTORS VECTORS_OUTPUT
#define RESULT_VECTORS VECTORS_INPUT
#define SOURCE_CHANNELS pc.K
#define SOURCE_HEIGHT pc.P
#define SOURCE_WIDTH pc.Q
#define RESULT_CHANNELS pc.C
#define RESULT_HEIGHT pc.H
#define RESULT_WIDTH pc.W
#include "lib/result.glsl"
