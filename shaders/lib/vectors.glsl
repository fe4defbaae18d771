// The tensors that a kernel reads and writes by vectors of four; the others it does by elements.

layout(constant_id = 15) const uint VECTORS = 0; // of these
const uint VECTORS_INPUT = 1;
const uint VECTORS_OUTPUT = 2;
