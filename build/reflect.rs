//! What the host must know of a SPIR-V module, read from the module itself, so that host and shader cannot
//! drift apart: bindings, push constants and specialization constants.
//!
//! Instruction layouts: SPIR-V specification, section 3.

use std::collections::{BTreeMap, BTreeSet};

const MAGIC: u32 = 0x0723_0203;
const HEADER_WORDS: usize = 5;

mod op {
    pub const TYPE_INT: u32 = 21;
    pub const TYPE_FLOAT: u32 = 22;
    pub const EXECUTION_MODE: u32 = 16;
    pub const TYPE_VECTOR: u32 = 23;
    pub const TYPE_ARRAY: u32 = 28;
    pub const TYPE_STRUCT: u32 = 30;
    pub const CONSTANT: u32 = 43;
    pub const SPEC_CONSTANT: u32 = 50;
    pub const TYPE_POINTER: u32 = 32;
    pub const TYPE_FORWARD_POINTER: u32 = 39;
    pub const VARIABLE: u32 = 59;
    pub const DECORATE: u32 = 71;
    pub const MEMBER_DECORATE: u32 = 72;
}

mod decoration {
    pub const SPEC_ID: u32 = 1;
    pub const BINDING: u32 = 33;
    pub const OFFSET: u32 = 35;
}

const STORAGE_CLASS_WORKGROUP: u32 = 4;
const STORAGE_CLASS_PUSH_CONSTANT: u32 = 9;
const EXECUTION_MODE_LOCAL_SIZE: u32 = 17;

/// A compute module's interface.
pub struct Module {
    /// Storage-buffer bindings of set 0, ascending.
    pub bindings: Vec<u32>,
    /// Byte offset of every push-constant member.
    pub push_constant_offsets: Vec<u32>,
    /// Bytes up to the end of the last member.
    pub push_constant_bytes: u32,
    /// Specialization constant ids, ascending.
    pub specialization_ids: Vec<u32>,
    /// Threads of a workgroup.
    pub local_size: [u32; 3],
    /// Bytes of all workgroup variables, arrays of a specialized length as long as by default.
    pub shared_memory: u32,
}

impl Module {
    pub fn parse(bytes: &[u8]) -> Result<Module, String> {
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if words.first() != Some(&MAGIC) || words.len() < HEADER_WORDS {
            return Err("not a SPIR-V module".into());
        }
        let mut bindings = BTreeSet::new();
        let mut specialization_ids = BTreeSet::new();
        let mut member_offsets: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
        let mut structs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut pointees: BTreeMap<u32, u32> = BTreeMap::new();
        let mut type_bytes: BTreeMap<u32, u32> = BTreeMap::new();
        let mut constants: BTreeMap<u32, u32> = BTreeMap::new();
        let mut local_size = [1; 3];
        let mut shared_pointers = Vec::new();
        let mut push_constant_pointer = None;

        let mut at = HEADER_WORDS;
        while at < words.len() {
            let length = (words[at] >> 16) as usize;
            let opcode = words[at] & 0xFFFF;
            let operands = words.get(at + 1..at + length).ok_or("a truncated instruction")?;
            match (opcode, operands) {
                (op::DECORATE, [_, decoration::BINDING, binding]) => drop(bindings.insert(*binding)),
                (op::DECORATE, [_, decoration::SPEC_ID, id]) => drop(specialization_ids.insert(*id)),
                (op::MEMBER_DECORATE, [structure, member, decoration::OFFSET, offset]) => {
                    member_offsets.entry(*structure).or_default().insert(*member, *offset);
                }
                (op::TYPE_INT, [id, bits, _]) | (op::TYPE_FLOAT, [id, bits, ..]) => {
                    type_bytes.insert(*id, bits / 8);
                }
                (op::TYPE_FORWARD_POINTER, [id, _]) => drop(type_bytes.insert(*id, 8)),
                (op::EXECUTION_MODE, [_, EXECUTION_MODE_LOCAL_SIZE, x, y, z]) => local_size = [*x, *y, *z],
                (op::CONSTANT | op::SPEC_CONSTANT, [_, id, value]) => drop(constants.insert(*id, *value)),
                (op::TYPE_VECTOR, [id, component, count]) => {
                    type_bytes.insert(*id, type_bytes.get(component).unwrap_or(&0) * count);
                }
                (op::TYPE_ARRAY, [id, element, length]) => {
                    let length = constants.get(length).ok_or("an array of unknown length")?;
                    type_bytes.insert(*id, type_bytes.get(element).unwrap_or(&0) * length);
                }
                (op::VARIABLE, [pointer, _, STORAGE_CLASS_WORKGROUP]) => shared_pointers.push(*pointer),
                (op::TYPE_STRUCT, [id, members @ ..]) => drop(structs.insert(*id, members.to_vec())),
                (op::TYPE_POINTER, [id, _, pointee]) => drop(pointees.insert(*id, *pointee)),
                (op::VARIABLE, [pointer, _, STORAGE_CLASS_PUSH_CONSTANT]) => push_constant_pointer = Some(*pointer),
                _ => {}
            }
            at += length;
        }

        let block = push_constant_pointer.and_then(|pointer| pointees.get(&pointer)).ok_or("no push constants")?;
        let members = structs.get(block).ok_or("push constants are not a block")?;
        let offsets = member_offsets.get(block).ok_or("push constants have no offsets")?;
        let (last, last_offset) = offsets.last_key_value().ok_or("push constants are empty")?;
        let last_type = members.get(*last as usize).ok_or("push constants have too many offsets")?;
        let last_bytes = type_bytes.get(last_type).ok_or("the last push constant is no scalar")?;
        Ok(Module {
            bindings: bindings.into_iter().collect(),
            push_constant_offsets: offsets.values().copied().collect(),
            push_constant_bytes: last_offset + last_bytes,
            specialization_ids: specialization_ids.into_iter().collect(),
            local_size,
            shared_memory: shared_pointers.iter().filter_map(|pointer| type_bytes.get(pointees.get(pointer)?)).sum(),
        })
    }
}
