//! The picture of [`svg`](super::svg) as pixels, for places that show no SVG.

use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::sync::Arc;

/// Pixels for each unit of the picture: sharp on screens of today.
const SCALE: f32 = 2.0;
/// Inter, regular and semi-bold, the letters that are needed: what the machine has installed does not matter.
const FONTS: [&[u8]; 2] = [
    include_bytes!("../../../assets/inter/Inter-Regular.ttf"),
    include_bytes!("../../../assets/inter/Inter-SemiBold.ttf"),
];

/// Draws an SVG, light; the bytes of a PNG.
///
/// # Errors
/// When it cannot be drawn.
pub fn render(svg: &str) -> Result<Vec<u8>> {
    let mut options = Options { font_family: "Inter".into(), ..Options::default() };
    let fonts = Arc::make_mut(&mut options.fontdb);
    FONTS.into_iter().for_each(|font| fonts.load_font_data(font.to_vec()));
    let tree = Tree::from_str(svg, &options).context("cannot read the picture")?;
    let size = tree.size().to_int_size().scale_by(SCALE).context("the picture is too large")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).context("the picture is too large")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("cannot encode the picture")
}
