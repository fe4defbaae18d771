// Which of the input and the output a kernel reaches by vectors of four, where it can; see Dispatch in plan.rs.

layout(constant_id = 15) const uint VECTORS = 0; // of these
const uint VECTORS_INPUT = 1;
const uint VECTORS_OUTPUT = 2;
