// y = x ⋆ weight + bias where every group has one input channel.
#version 450
#extension GL_GOOGLE_include_directive : require

#include "lib/forward.glsl"
#include "lib/depthwise.glsl"
