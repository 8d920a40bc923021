// What PhotoClassifier uses of Android, for the JVM: a bitmap is an array, assets are files of a folder.
package android.graphics

class Bitmap(val width: Int, val height: Int, private val argb: IntArray) {
    fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
        for (i in 0 until height) {
            argb.copyInto(pixels, offset + i * stride, (y + i) * this.width + x, (y + i) * this.width + x + width)
        }
    }
}
