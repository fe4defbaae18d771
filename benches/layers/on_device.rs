//! A layer whose tensors lie on the device.

use super::{Shape, numbers};
use grilly::{Accumulate, Backward, Buffer, Context, Conv2d, DeviceTensor, Forward, Input, Output, Result, Weight};

/// The tensors of a layer, and calls on them.
pub struct DeviceLayer {
    pub conv: Conv2d,
    pub x: Tensor,
    pub weight: Tensor,
    pub bias: Tensor,
    pub y: Tensor,
    pub dy: Tensor,
    pub dx: Tensor,
    pub dweight: Tensor,
    pub dbias: Tensor,
}

/// A tensor in a buffer of its own.
pub struct Tensor {
    pub buffer: Buffer,
    pub shape: Vec<u64>,
}

impl Tensor {
    /// Filled with small random numbers: zeros would flatter the device's power budget.
    fn new(context: &Context, shape: &[u64], seed: u64) -> Result<Tensor> {
        let elements = shape.iter().product::<u64>();
        let buffer = context.create_buffer(4 * elements)?;
        let bytes: Vec<u8> = numbers(elements as usize, seed).iter().flat_map(|number| number.to_ne_bytes()).collect();
        buffer.write(0, &bytes)?;
        Ok(Tensor { buffer, shape: shape.to_vec() })
    }

    fn input(&self) -> Input<'_> {
        Input::Device(self.view())
    }

    fn output(&self) -> Output<'_> {
        Output::Device(self.view())
    }

    fn view(&self) -> DeviceTensor<'_> {
        DeviceTensor::new(&self.buffer, 0, &self.shape).expect("the buffer was made for this shape")
    }
}

impl DeviceLayer {
    pub fn new(context: &Context, shape: &Shape, batch: u64) -> Result<DeviceLayer> {
        let config = shape.config();
        let conv = Conv2d::new(context, config)?;
        let input = [batch, shape.c, shape.h, shape.w];
        let output = conv.output_shape(input)?;
        let weight = conv.config().weight_shape();
        Ok(DeviceLayer {
            x: Tensor::new(context, &input, 1)?,
            weight: Tensor::new(context, &weight, 2)?,
            bias: Tensor::new(context, &[shape.k], 3)?,
            y: Tensor::new(context, &output, 4)?,
            dy: Tensor::new(context, &output, 5)?,
            dx: Tensor::new(context, &input, 6)?,
            dweight: Tensor::new(context, &weight, 7)?,
            dbias: Tensor::new(context, &[shape.k], 8)?,
            conv,
        })
    }

    pub fn run(&self, pass: &str) -> Result<()> {
        let weight = || Weight::Raw(self.weight.input());
        match pass {
            "forward" => self.conv.forward(Forward {
                x: self.x.input(),
                weight: weight(),
                bias: Some(self.bias.input()),
                y: self.y.output(),
            }),
            "input gradient" => self.conv.backward(Backward {
                x: None,
                weight: Some(weight()),
                dy: self.dy.input(),
                dx: Some(self.dx.output()),
                dweight: None,
                dbias: None,
                accumulate: Accumulate::default(),
            }),
            "weight gradient" => self.conv.backward(Backward {
                x: Some(self.x.input()),
                weight: None,
                dy: self.dy.input(),
                dx: None,
                dweight: Some(self.dweight.output()),
                dbias: Some(self.dbias.output()),
                accumulate: Accumulate::default(),
            }),
            other => panic!("no pass is called {other}"),
        }
    }
}
