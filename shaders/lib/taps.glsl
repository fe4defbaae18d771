// Where a destination pixel reads its source through one kernel element (tap).

#ifdef BACKWARD_INPUT
// dx at (h, w) reads dy at (p, q) with p·stride + r·dilation − padding = h, if there is such a p.
layout(constant_id = 0) const bool UNIT_STRIDE = false; // spares two divisions a tap

bool source_pixel(ivec2 pixel, ivec2 tap, out ivec2 source) {
    ivec2 reach = pixel + ivec2(pc.padding_h, pc.padding_w) - tap * ivec2(pc.dilation_h, pc.dilation_w);
    if (UNIT_STRIDE) {
        source = reach;
        return uint(source.x) < pc.P && uint(source.y) < pc.Q;
    }
    ivec2 stride = ivec2(pc.stride_h, pc.stride_w);
    source = reach / stride;
    return all(greaterThanEqual(reach, ivec2(0))) && source * stride == reach
        && uint(source.x) < pc.P && uint(source.y) < pc.Q;
}
#else
// y at (p, q) reads x at (p·stride + r·dilation − padding, …).
bool source_pixel(ivec2 pixel, ivec2 tap, out ivec2 source) {
    source = pixel * ivec2(pc.stride_h, pc.stride_w) - ivec2(pc.padding_h, pc.padding_w)
        + tap * ivec2(pc.dilation_h, pc.dilation_w);
    return uint(source.x) < pc.H && uint(source.y) < pc.W;
}
#endif
