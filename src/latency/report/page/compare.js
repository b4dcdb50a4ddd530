// The chart of a comparison: one run's lines are dashed. A click on a name shows or hides its line.

const draw = () => drawAll([curves]);

draw();
dark.addEventListener("change", draw);
