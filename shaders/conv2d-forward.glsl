// y = x ⋆ weight + bias, as an implicit GEMM.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/forward.glsl"
#include "lib/implicit_gemm.glsl"
