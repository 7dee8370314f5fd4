"""Networks from diffusers and transformers, wrapped to the ports of their components.

One file a component's network: `build(component, architecture)` gives the wrapped network on the
current default device, `dims(config, …)` the numbers of its port shapes (from the recipe's sizes
too, if they depend on them), `samples(...)` seeded inputs.
One file a layout of attention, by its name: `lay_out(network)` gives the network in that layout.
The wrapped network is the attribute `net`, so a parameter is `net.<its name in the checkpoint>`.
"""
