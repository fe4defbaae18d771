//! Handles: typed opaque pointers in C, keys into a registry here. They are looked up and never dereferenced,
//! so a null, stale, destroyed, foreign or wrongly typed handle is an error and not a crash.
//!
//! A key holds the handle's type, the process generation (a fork starts a new one), a slot and the slot's
//! generation. Slots are reused; a generation never is, within 2³² reuses.

use crate::error::{Error, Result, Status};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, RwLock};

/// One device (a Vulkan GPU, or the CPU), its memory pool and its compiled pipelines. Any thread, concurrently.
#[allow(non_camel_case_types)]
pub struct grilly_context {
    _opaque: [u8; 0],
}

/// Memory on a context's device. The handle may be used from any thread; the caller orders access to its contents.
#[allow(non_camel_case_types)]
pub struct grilly_buffer {
    _opaque: [u8; 0],
}

/// An immutable, validated convolution on a context. Any thread, concurrently.
#[allow(non_camel_case_types)]
pub struct grilly_conv2d {
    _opaque: [u8; 0],
}

/// A weight packed once for a convolution's kernels. Any thread, concurrently.
#[allow(non_camel_case_types)]
pub struct grilly_weights {
    _opaque: [u8; 0],
}

/// One pass of a convolution over one input shape, ready to run. Any thread, concurrently.
#[allow(non_camel_case_types)]
pub struct grilly_plan {
    _opaque: [u8; 0],
}

/// A call that was submitted and may not be done yet. Any thread, concurrently.
#[allow(non_camel_case_types)]
pub struct grilly_ticket {
    _opaque: [u8; 0],
}

/// What a handle stands for.
#[derive(Clone)]
pub enum Object {
    Context(crate::Context),
    Buffer(Arc<crate::Buffer>),
    Conv2d(crate::Conv2d),
    Weights(Arc<crate::Weights>),
    Plan(crate::PassPlan),
    Ticket(Arc<crate::Ticket>),
}

/// A handle type in C and the object behind it.
pub trait Handle {
    type Object: Clone;
    const TAG: u64;
    const NAME: &'static str;
    fn wrap(object: Self::Object) -> Object;
    fn unwrap(object: &Object) -> Option<Self::Object>;
}

macro_rules! handle {
    ($c:ident, $object:ty, $variant:ident, $tag:literal) => {
        impl Handle for $c {
            type Object = $object;
            const TAG: u64 = $tag;
            const NAME: &'static str = stringify!($c);
            fn wrap(object: $object) -> Object {
                Object::$variant(object)
            }
            fn unwrap(object: &Object) -> Option<$object> {
                match object {
                    Object::$variant(object) => Some(object.clone()),
                    _ => None,
                }
            }
        }
    };
}
handle!(grilly_context, crate::Context, Context, 1);
handle!(grilly_buffer, Arc<crate::Buffer>, Buffer, 2);
handle!(grilly_conv2d, crate::Conv2d, Conv2d, 3);
handle!(grilly_weights, Arc<crate::Weights>, Weights, 4);
handle!(grilly_plan, crate::PassPlan, Plan, 5);
handle!(grilly_ticket, Arc<crate::Ticket>, Ticket, 6);

/// Handles of one process. A forked child must not touch its parent's locks or devices, so it begins a new one.
struct Registry {
    process: u32,
    epoch: u64,
    slots: RwLock<Slots>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    generation: u32,
    object: Option<Object>,
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

const EPOCH_BITS: u32 = 8;
const SLOT_BITS: u32 = 20;

struct Key {
    tag: u64,
    epoch: u64,
    slot: usize,
    generation: u32,
}

impl Key {
    fn pack(&self) -> u64 {
        let slot = self.slot as u64;
        ((self.tag << EPOCH_BITS | self.epoch) << SLOT_BITS | slot) << 32 | u64::from(self.generation)
    }

    fn unpack(value: u64) -> Key {
        Key {
            tag: value >> (32 + SLOT_BITS + EPOCH_BITS),
            epoch: value >> (32 + SLOT_BITS) & ((1 << EPOCH_BITS) - 1),
            slot: (value >> 32 & ((1 << SLOT_BITS) - 1)) as usize,
            generation: value as u32,
        }
    }
}

/// The registry of this process, if it already has one. Registries are never freed: a thread may hold one.
fn registry() -> Option<&'static Registry> {
    // SAFETY: the pointer is null or came from `Box::leak` in `registry_for_insert`.
    let registry = unsafe { REGISTRY.load(Ordering::Acquire).as_ref() }?;
    (registry.process == std::process::id()).then_some(registry)
}

fn registry_for_insert() -> &'static Registry {
    loop {
        if let Some(registry) = registry() {
            return registry;
        }
        let previous = REGISTRY.load(Ordering::Acquire);
        // SAFETY: as in `registry`.
        let epoch = unsafe { previous.as_ref() }.map_or(1, |inherited| (inherited.epoch + 1) % (1 << EPOCH_BITS));
        let fresh: *mut Registry =
            Box::leak(Box::new(Registry { process: std::process::id(), epoch, slots: RwLock::default() }));
        // A lost race leaves a few bytes behind and takes the winner's.
        let _ = REGISTRY.compare_exchange(previous, fresh, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Makes a handle for an object.
pub fn insert<H: Handle>(object: H::Object) -> Result<*mut H> {
    let registry = registry_for_insert();
    let mut slots = registry.slots.write().unwrap_or_else(|poison| poison.into_inner());
    let slot = match slots.free.pop() {
        Some(slot) => slot,
        None if slots.slots.len() < 1 << SLOT_BITS => {
            slots.slots.push(Slot { generation: 0, object: None });
            slots.slots.len() - 1
        }
        None => return Err(Error::new(Status::OutOfHostMemory, format!("{} handles are alive", 1 << SLOT_BITS))),
    };
    let entry = &mut slots.slots[slot];
    entry.generation = entry.generation.wrapping_add(1);
    entry.object = Some(H::wrap(object));
    let key = Key { tag: H::TAG, epoch: registry.epoch, slot, generation: entry.generation };
    Ok(key.pack() as usize as *mut H)
}

/// The object behind a handle.
pub fn get<H: Handle>(handle: *const H) -> Result<H::Object> {
    let (registry, key) = resolve(handle)?;
    let slots = registry.slots.read().unwrap_or_else(|poison| poison.into_inner());
    let object = slots.slots.get(key.slot).filter(|slot| slot.generation == key.generation);
    object.and_then(|slot| slot.object.as_ref()).and_then(H::unwrap).ok_or_else(|| stale::<H>(handle))
}

/// Ends a handle and returns its object, to be dropped outside the registry's lock. `None` for a null handle, and
/// for one that a forked child inherited: its device must not be touched.
pub fn remove<H: Handle>(handle: *mut H) -> Result<Option<H::Object>> {
    if handle.is_null() {
        return Ok(None);
    }
    let (registry, key) = match resolve(handle.cast_const()) {
        Err(error) if error.status() == Status::Forked => return Ok(None),
        resolved => resolved?,
    };
    let mut slots = registry.slots.write().unwrap_or_else(|poison| poison.into_inner());
    let slot = slots.slots.get_mut(key.slot).filter(|slot| slot.generation == key.generation);
    // A handle that was tampered with may name the place of an object of another type, which stays.
    let slot = slot.filter(|slot| slot.object.as_ref().and_then(H::unwrap).is_some());
    let object = slot.and_then(|slot| slot.object.take()).ok_or_else(|| stale::<H>(handle))?;
    slots.free.push(key.slot);
    Ok(H::unwrap(&object))
}

fn resolve<H: Handle>(handle: *const H) -> Result<(&'static Registry, Key)> {
    if handle.is_null() {
        return Err(Error::new(Status::InvalidHandle, format!("the {} is NULL", H::NAME)));
    }
    let key = Key::unpack(handle as usize as u64);
    if key.tag != H::TAG {
        return Err(Error::new(Status::InvalidHandle, format!("{handle:p} is no {}", H::NAME)));
    }
    match registry() {
        Some(registry) if registry.epoch == key.epoch => Ok((registry, key)),
        // SAFETY: as in `registry`; only the fields that never change are read.
        other => match other.or(unsafe { REGISTRY.load(Ordering::Acquire).as_ref() }) {
            Some(newest) if key.epoch <= newest.epoch && key.epoch > 0 => Err(Error::new(
                Status::Forked,
                format!("the {} was created before this process was forked; create a new context", H::NAME),
            )),
            _ => Err(stale::<H>(handle)),
        },
    }
}

fn stale<H: Handle>(handle: *const H) -> Error {
    Error::new(Status::InvalidHandle, format!("the {} {handle:p} does not exist (any more)", H::NAME))
}
