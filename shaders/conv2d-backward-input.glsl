// dx = the transposed convolution of dy, as an implicit GEMM over the taps that reach a pixel.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/backward-input.glsl"
#include "lib/implicit_gemm.glsl"
