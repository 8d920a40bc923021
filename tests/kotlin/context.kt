package android.content

import java.io.File
import java.io.InputStream

class Context(folder: File) {
    val assets = Assets(folder)
}

class Assets(val folder: File) {
    fun open(name: String): InputStream = File(folder, name).inputStream()
}
