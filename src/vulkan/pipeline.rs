//! Compiled pipelines, made on first use and kept with the device.

use super::device::Device;
use super::failure;
use super::pipeline_cache::PipelineCache;
use crate::error::Result;
use crate::plan::Module;
use ash::vk;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A kernel, specialized and compiled. Plain handles: the device keeps them alive.
#[derive(Clone, Copy)]
pub struct Pipeline {
    pub raw: vk::Pipeline,
    pub layout: vk::PipelineLayout,
    pub set_layout: vk::DescriptorSetLayout,
}

/// A module and the values of its specialization constants.
type Key = (&'static str, Vec<u32>);

/// All pipelines of a device.
#[derive(Default)]
pub struct Pipelines {
    made: Mutex<HashMap<Key, Pipeline>>,
    compiled: AtomicU64,
    cache: OnceLock<PipelineCache>,
}

impl Pipelines {
    /// What the driver compiled, to be kept on disk; if any.
    pub fn cache(&self) -> Option<&PipelineCache> {
        self.cache.get()
    }

    /// Gives them a cache, before the first is compiled.
    pub fn set_cache(&self, cache: PipelineCache) -> std::result::Result<(), PipelineCache> {
        self.cache.set(cache)
    }

    /// How many were compiled.
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// # Safety
    /// Nothing on the device uses a pipeline any more.
    pub unsafe fn destroy(&self, device: &ash::Device) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, pipeline) in made.drain() {
            // SAFETY: promised by the caller.
            unsafe { destroy(device, &pipeline) };
        }
        if let Some(cache) = self.cache.get() {
            // SAFETY: as above.
            unsafe { cache.destroy(device) };
        }
    }
}

/// # Safety
/// Nothing uses the pipeline any more. Null handles are ignored, as Vulkan does.
unsafe fn destroy(device: &ash::Device, pipeline: &Pipeline) {
    // SAFETY: promised by the caller.
    unsafe {
        device.destroy_pipeline(pipeline.raw, None);
        device.destroy_pipeline_layout(pipeline.layout, None);
        device.destroy_descriptor_set_layout(pipeline.set_layout, None);
    }
}

impl Device {
    /// The pipeline of a module with these specialization constants. Two threads may compile the same one at once; the
    /// first to finish wins, and neither waits for the other.
    pub fn pipeline(&self, module: &'static Module, specialization: &[u32]) -> Result<Pipeline> {
        let key = (module.name, specialization.to_vec());
        let made = &self.pipelines().made;
        if let Some(pipeline) = made.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*pipeline);
        }
        let pipeline = self.compile(module, specialization)?;
        self.pipelines().compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(cache) = self.pipelines().cache() {
            cache.note_growth();
        }
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(winner) = made.get(&key) {
            // SAFETY: nobody has seen ours.
            unsafe { destroy(self.raw(), &pipeline) };
            return Ok(*winner);
        }
        made.insert(key, pipeline);
        Ok(pipeline)
    }

    fn compile(&self, module: &'static Module, specialization: &[u32]) -> Result<Pipeline> {
        let mut pipeline = Pipeline {
            raw: vk::Pipeline::null(),
            layout: vk::PipelineLayout::null(),
            set_layout: vk::DescriptorSetLayout::null(),
        };
        let result = self.compile_into(&mut pipeline, module, specialization);
        if let Err(result) = result {
            // SAFETY: what was made so far is known to nobody else.
            unsafe { destroy(self.raw(), &pipeline) };
            return Err(self.note(failure(&format!("compiling {}", module.name), result)));
        }
        Ok(pipeline)
    }

    fn compile_into(
        &self,
        pipeline: &mut Pipeline,
        module: &'static Module,
        specialization: &[u32],
    ) -> std::result::Result<(), vk::Result> {
        debug_assert_eq!(specialization.len(), module.specialization_ids.len(), "{}", module.name);
        let bindings: Vec<_> = module
            .bindings
            .iter()
            .map(|&binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let flags = if self.push_descriptor().is_some() {
            vk::DescriptorSetLayoutCreateFlags::PUSH_DESCRIPTOR_KHR
        } else {
            vk::DescriptorSetLayoutCreateFlags::empty()
        };
        let push_constants = [vk::PushConstantRange::default()
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .size(module.push_constant_bytes)];
        let entries: Vec<_> = module
            .specialization_ids
            .iter()
            .enumerate()
            .map(|(at, &id)| vk::SpecializationMapEntry { constant_id: id, offset: 4 * at as u32, size: 4 })
            .collect();
        let values: Vec<u8> = specialization.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&values);
        let words: Vec<u32> = module.spirv.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();

        // SAFETY: every structure lives until its call returns; the SPIR-V is this library's own and was compiled by
        // shaderc; specialization constants were checked against the device's limits when the plan was made.
        unsafe {
            pipeline.set_layout = self.raw().create_descriptor_set_layout(
                &vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings).flags(flags),
                None,
            )?;
            let set_layouts = [pipeline.set_layout];
            pipeline.layout = self.raw().create_pipeline_layout(
                &vk::PipelineLayoutCreateInfo::default()
                    .set_layouts(&set_layouts)
                    .push_constant_ranges(&push_constants),
                None,
            )?;
            let shader = self.raw().create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&words), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(shader)
                .name(c"main")
                .specialization_info(&specialization);
            let create = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(pipeline.layout)];
            let cache = self.pipelines().cache().map_or(vk::PipelineCache::null(), PipelineCache::raw);
            let created = self.raw().create_compute_pipelines(cache, &create, None);
            self.raw().destroy_shader_module(shader, None);
            pipeline.raw = match created {
                Ok(pipelines) => pipelines.first().copied().unwrap_or_default(),
                Err((_, result)) => return Err(result),
            };
            Ok(())
        }
    }
}
