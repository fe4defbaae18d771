//! Proves that a run under the validation layers would notice. `make test` runs this first, as it runs everything
//! else, and then looks for both mistakes in the layers' log: a silent log afterwards means something.

use ash::vk;

#[test]
#[ignore = "makes Vulkan mistakes on purpose; `make test` runs it and reads the log"]
fn two_deliberate_mistakes_are_made() {
    // SAFETY: loading the Vulkan loader is what it is for.
    let entry = unsafe { ash::Entry::load() }.expect("a Vulkan loader");
    let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
    let info = vk::InstanceCreateInfo::default().application_info(&application);
    // SAFETY: valid use but for the two mistakes, which the layer reports and drivers survive.
    unsafe {
        let instance = entry.create_instance(&info, None).expect("an instance");
        let physical = instance.enumerate_physical_devices().expect("devices")[0];
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
        let device = instance.create_device(physical, &info, None).expect("a device");
        let info = vk::BufferCreateInfo::default().size(64).usage(vk::BufferUsageFlags::TRANSFER_DST);
        let buffer = device.create_buffer(&info, None).expect("a buffer");
        let needs = device.get_buffer_memory_requirements(buffer);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(needs.memory_type_bits.trailing_zeros());
        let memory = device.allocate_memory(&info, None).expect("memory");
        device.bind_buffer_memory(buffer, memory, 0).expect("a bound buffer");
        let pool = device.create_command_pool(&vk::CommandPoolCreateInfo::default(), None).expect("a pool");
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        let commands = device.allocate_command_buffers(&info).expect("a command buffer")[0];
        device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default()).expect("recording begins");
        // For synchronization validation: the second write does not wait for the first.
        device.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, 1);
        device.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, 2);
        device.end_command_buffer(commands).expect("recording ends");
        device.destroy_command_pool(pool, None);
        device.free_memory(memory, None);
        // For core validation: the device goes while its buffer lives.
        device.destroy_device(None);
        instance.destroy_instance(None);
    }
}
