# Lets a Stable-Diffusion inpainting pipeline paint the synthetic defects, in place of the small
# model that is trained on the labelled images:
#
#     _base_ = [..., '_base_/datasets/synthetic_stable_diffusion.py']
#
# and give `synthesiser` to mmdsym.DiffusionSynthesisDataset. It needs the package transformers.
# `model` is a folder that diffusers saved (weights as .safetensors), or a hub id with the commit
# that is meant, for instance
#     model='stable-diffusion-v1-5/stable-diffusion-inpainting', revision='<commit>'
synthesiser = dict(
    type='mmdsym.StableDiffusionSynthesiser',
    model='weights/stable-diffusion-inpainting',
    classes=(
        'crazing',
        'inclusion',
        'patches',
        'pitted_surface',
        'rolled-in_scale',
        'scratches',
    ),
    # One prompt per class; without `prompts` they are made from the class names.
    prompts={
        'crazing': 'grey microscope photo of a steel surface with a network of fine cracks',
        'inclusion': 'grey microscope photo of a steel surface with dark elongated inclusions',
        'patches': 'grey microscope photo of a steel surface with dark blotchy patches',
        'pitted_surface': 'grey microscope photo of a steel surface full of small corrosion pits',
        'rolled-in_scale': 'grey microscope photo of a steel surface with rolled-in scale flakes',
        'scratches': 'grey microscope photo of a steel surface with bright straight scratches',
    },
    clean_prompt='grey microscope photo of a plain rolled steel surface',
    negative_prompt='colour, text, people, objects',
    num_steps=20,
    guidance=7.5,
    resolution=512,
    # 'float16' halves memory and time on a GPU; a CPU needs 'float32'.
    dtype='float32',
    batch_size=4,
)
