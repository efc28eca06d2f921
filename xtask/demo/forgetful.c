/* What a request leaves behind in xtask/demo/plain.py: a block that is kept by nobody.
 *
 * With FORGETFUL_MODULE this is an extension module of Python, else a library that Python calls through ctypes.
 */
#ifdef FORGETFUL_MODULE
#include <Python.h>
#endif
#include <stdlib.h>
#include <string.h>

/* The newest block. Those before it are lost. */
static void *volatile newest;

__attribute__((noinline, visibility("default"))) int forgetful_keep(unsigned long bytes)
{
    void *kept = malloc(bytes);
    if (kept == NULL)
        return -1;
    memset(kept, 1, bytes);
    newest = kept;
    return 0;
}

#ifdef FORGETFUL_MODULE
static PyObject *keep(PyObject *module, PyObject *argument)
{
    (void)module;
    unsigned long bytes = PyLong_AsUnsignedLong(argument);
    if (PyErr_Occurred())
        return NULL;
    if (forgetful_keep(bytes) != 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"keep", keep, METH_O, "Allocates so many bytes and forgets them."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "forgetful", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_forgetful(void)
{
    return PyModule_Create(&definition);
}
#endif
