"""A recipe's steps, run in the process of a test: torch and coremltools are imported once."""

from sdbuild.base.digest import digest
from sdbuild.engine.plan import plan
from sdbuild.engine.stage import Job, stage


class Steps:
    """The artifacts of a recipe, each made when it is first asked for.

    Recipes with the same folder share what they have in common.
    """

    def __init__(self, recipe, folder):
        self.plan = plan(recipe)
        self.folder = folder

    def __getitem__(self, name):
        """The folder with the artifact of a step."""
        word = name.replace(":", "-").replace("/", "-")
        output = self.folder / f"{word}-{self._key(name)[:8]}"
        if not output.exists():
            step = self.plan.steps[name]
            inputs = {key: self[source.step] / source.path for key, source in step.inputs.items()}
            if name == "bundle":
                (self.folder / "provenance.json").write_text("[]")
                inputs["provenance"] = self.folder / "provenance.json"
            output.mkdir(parents=True)
            stage(step.kind).run(Job(
                params=step.params, inputs=inputs, output=output, reads=step.reads,
                places=step.source.places if step.source else ()))
        return output

    def _key(self, name):
        step = self.plan.steps[name]
        inputs = {key: (self._key(source.step), source.path)
                  for key, source in step.inputs.items()}
        places = step.source.places if step.source else ()
        return digest("test", [name, dict(step.params), inputs, places])
