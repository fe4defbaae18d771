// dx = the transposed convolution of dy where every group has one input channel.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/backward-input.glsl"
#include "lib/depthwise.glsl"
