# Lets a Stable-Diffusion inpainting pipeline paint the synthetic defects, in place of the small
# model that is trained on the labelled images:
#
#     _base_ = [..., '_base_/datasets/synthetic_stable_diffusion.py']
#
# and give `synthesiser` to mmdsym.DiffusionSynthesisDataset, which tells it the classes of the
# data. It needs the package transformers. `model` is a folder that diffusers saved (weights as
# .safetensors), or a hub id with the commit that is meant, for instance
#     model='stable-diffusion-v1-5/stable-diffusion-inpainting', revision='<commit>'
#
# Prompts are made from the class names. Where a name says little, give `prompts` yourself, one for
# every class; synthetic_stable_diffusion_neu.py does so for NEU-DET.
synthesiser = dict(
    type='mmdsym.StableDiffusionSynthesiser',
    model='weights/stable-diffusion-inpainting',
    negative_prompt='text, people',
    num_steps=20,
    guidance=7.5,
    resolution=512,
    # 'float16' halves memory and time on a GPU; a CPU needs 'float32'.
    dtype='float32',
    batch_size=4,
)
