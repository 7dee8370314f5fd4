"""Networks from diffusers and transformers, wrapped to the ports of their components.

One file a component's network: `build(architecture)` gives the wrapped network on the current
default device, `dims(config, …)` the numbers of its port shapes
(from the picture's size too, if they depend on it), `samples(...)` seeded inputs.
One file a layout of attention, by its name: `lay_out(network)` gives the network in that layout.
The wrapped network is the attribute `net`, so a parameter is `net.<its name in the checkpoint>`.
"""
